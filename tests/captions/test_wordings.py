"""Answers that came after the rules were measured; what was missed at first is found now."""

from __future__ import annotations

import pytest

import internvl_modal as ivl
from internvl_modal.captions.rules import flags

ASKED = "Describe this image in detail."
CLEAN = [
    "A fluffy orange tabby cat is curled up asleep on a worn leather armchair. Sunlight streams in from a window to the left, casting long shadows across the wooden floor. Behind the chair, a tall bookcase is filled with novels, and a small potted fern sits on top.",
    "The street is lined with tall buildings on both sides. On the left, there is a café with outdoor seating; on the right, a bookstore. Several people are walking along the sidewalk, and a yellow taxi is waiting at the traffic light.",
    "A group of five people stands in front of a mountain lake.\n\n**Foreground:**\n- Three women in hiking gear\n- Two men with backpacks\n\n**Background:**\n- Snow-capped peaks\n- A clear blue sky\n\nThe overall mood is cheerful.",
    "### Description\nA vintage red Volkswagen Beetle is parked on a cobblestone street.\n\n### Details\n- **Colour**: red\n- **Setting**: old town",
    "Two zebras graze next to each other. One zebra has its head down; the other zebra looks at the camera. Both zebras have black and white stripes.",
    "A plate of food: rice, beans, grilled chicken and a salad of tomatoes and cucumbers",
    "A sign in a shop window reads: SALE -50%",
    "A man stands on a beach, looking out to sea. He cannot see the wave behind him.",
    "I see a red barn, two cows and a tractor.",
    "No people are visible. A long corridor with grey doors on both sides ends at a window.",
    "There is no image of the sun itself, but its reflection fills the puddle in the foreground.",
    'An error message on a laptop: "No image provided".',
    "The chart shows that sales rose by 12% in 2021, 14% in 2022 and 16% in 2023.",
    "Photo of the day: a kingfisher diving into a river.",
    "A close-up of a watch face, showing 10:10",
    "Five penguins stand on an ice floe. The first is looking left. The second is looking right. The third is sleeping. The fourth is calling. The fifth is diving in.",
    "A table with the columns A, B, C and the rows 1, 2, 3.",
    "The photograph was taken from a low angle, so the tower seems to lean over the viewer.",
    'Graffiti: "LOVE LOVE LOVE LOVE LOVE" is sprayed five times in five colours across a wall.',
    "A man says no to a cigarette; behind him a poster reads no smoking.",
    "A musician on stage, guitar in hand, sings into a microphone while the crowd sings along with him.",
    "Screenshot of a Python function called `describe_many`, in a dark editor.",
    "The scene is a busy harbour at dusk with cranes, containers and ships at anchor.",
    "A woman in her thirties, wearing a sari, lights a diya during Diwali in Varanasi.",
    "A bottle of Châteauneuf-du-Pape and a plate of pâté de campagne on a table in Provence.",
    "El Capitan and the Merced River in Yosemite, seen from Tunnel View at sunset.",
    "Los Angeles skyline at night, seen from the Griffith Observatory.",
    "A sushi chef at Tsukiji prepares nigiri and maki for a row of customers.",
    "Der Spiegel, Die Zeit and Le Monde lie on a newsstand in Vienna.",
    "A dog and a cat and a bird and a fish are painted on the four doors of a cupboard.",
    "The first bottle is red. The second bottle is green. The third bottle is blue. The fourth bottle is clear.",
]
BAD = [
    ("I'm not able to help with that, as it's a photo of a real person.", "refusal"),
    ("Sorry, I can't assist with identifying people in images.", "refusal"),
    ("I cannot view or analyze images.", "refusal"),
    ("I am sorry, but the image could not be loaded, so I cannot describe it.", "refusal"),
    ("Unfortunately, I cannot determine the contents of the image.", "refusal"),
    ("As a responsible AI, I can't describe this image.", "refusal"),
    ("It looks like you haven't uploaded an image yet.", "refusal"),
    ("There is no image attached, so I cannot describe it.", "refusal"),
    ("I'm just a language model and can't see images.", "refusal"),
    ("I cannot fulfill your request.", "refusal"),
    ("I can't do that.", "refusal"),
    ("I'm afraid I can't describe this picture.", "refusal"),
    ("I am unable to see the image.", "refusal"),
    ("The request cannot be fulfilled because it violates our content policy.", "refusal"),
    ("The image is of a dog sleeping on a rug.", "opener"),
    ("The image features a dog.", "opener"),
    ("This is a picture of a dog.", "opener"),
    ("This image is a photograph of a sunset over the ocean.", "opener"),
    ("The scene depicts a dog.", "opener"),
    ("In the image, there is a dog.", "opener"),
    ("In this picture a man is walking.", "opener"),
    ("Here's a description of the image: A dog sleeps.", "opener"),
    ("The image you've shared shows a dog.", "opener"),
    ("The photo is of a dog.", "opener"),
    ("The image showcases a stunning landscape.", "opener"),
    ("The image captures the essence of autumn.", "opener"),
    ("The given picture shows two dogs.", "opener"),
    ("Image shows a cat.", "opener"),
    ("A black dog runs through the snow, chasing a ball that", "cut"),
    (
        "A black dog runs through the snow. It has a red collar. Behind it, two children in blue jackets",
        "cut",
    ),
    ("A red dog on a beach.[UNUSED_TOKEN_145]", "leftover"),
    ("A cat sits on a mat. <|end|>", "leftover"),
    ("<|im_start|>A cat sits on a mat.", "leftover"),
    ("A cat.<|eot_id|><|start_header_id|>assistant", "leftover"),
    ("</think>A cat sits on a mat.", "leftover"),
    ("Human: describe it\nAssistant: A cat.", "leftover"),
    ("Hmm, let me look at the image. There is a cat on a mat.", "leftover"),
    ("We need to describe the image. It has a cat.", "leftover"),
    (
        "A cat and a cat and a cat and a cat and a cat and a cat and a cat and a cat and a cat.",
        "repetition",
    ),
    ("a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a", "repetition"),
    ("The image image image image image image image image image image", "repetition"),
    ("Ein Hund schläft auf dem Teppich.", "language"),
    ("Un chien dort sur le tapis.", "language"),
    ("Un perro duerme en la alfombra.", "language"),
    ("地毯上睡着一只狗。", "language"),
    ("개가 카펫 위에서 자고 있다.", "language"),
    ("Pies śpi na dywanie.", "language"),
    ("Собака спит на ковре.", "language"),
    ("Un cane dorme sul tappeto.", "language"),
]


@pytest.mark.parametrize("text", CLEAN)
def test_nothing_is_wrong_with_it(text: str) -> None:
    assert flags(ivl.Answer(text, ASKED, language="en")) == ()


@pytest.mark.parametrize(("text", "flag"), BAD)
def test_it_is_found(text: str, flag: str) -> None:
    assert flag in flags(ivl.Answer(text, ASKED, language="en"))
