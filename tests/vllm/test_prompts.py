"""The prompt that vLLM makes of a request, read from the tokens that it gave the model."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.conformance.standin.prompts import INTERNVL
from tests.vllm.between import END, START, saying, through, turn
from tests.vllm.server import Server
from tests.vllm.tiny_model import CONTROL, token_id

PICTURE = Image.new("RGB", (896, 448), "red")
SMALL = Image.new("RGB", (100, 100), "blue")


def test_a_picture_and_a_question(vllm: Server) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, "What is this?", system="Be brief.")
    assert between.prompt == (
        turn("system", "Be brief.")
        + turn("user", "<3 tiles>\nWhat is this?")
        + f"{START}assistant\n"
    )


def test_several_turns(vllm: Server) -> None:
    between = saying("Red.")
    with through(vllm, between) as client:
        answer = client.chat(
            [
                {"role": "user", "text": "What is this?", "images": [PICTURE]},
                {"role": "assistant", "text": "A square."},
                {"role": "user", "text": "Of which colour?"},
            ],
            system="Be brief.",
        )
    assert answer.text == "Red."
    assert between.prompt == (
        turn("system", "Be brief.")
        + turn("user", "<3 tiles>\nWhat is this?")
        + turn("assistant", "A square.")
        + turn("user", "Of which colour?")
        + f"{START}assistant\n"
    )


@pytest.mark.parametrize("control", [*CONTROL, "<image>"])
def test_control_tokens_in_a_text_stay_text(vllm: Server, control: str) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, f"a {control} b", system=f"c {control} d")
        client.describe(PICTURE, "a b", system="c d")
    answers = [answer.json()["prompt_token_ids"] for answer in between.answers]
    numbers = {token_id(name) for name in CONTROL}
    held, without = ([token for token in answer if token in numbers] for answer in answers)
    assert held == without


def test_without_a_system_message_internvls_own_is_sent(vllm: Server) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, "What is this?")
    assert between.prompt.startswith(turn("system", INTERNVL) + f"{START}user\n")


def test_an_empty_system_message_is_sent_empty(vllm: Server) -> None:
    """Qwen's template would write its own."""
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, "What is this?", system="")
    assert between.prompt == (
        turn("system", "") + turn("user", "<3 tiles>\nWhat is this?") + f"{START}assistant\n"
    )


def test_labels_stand_with_their_pictures(vllm: Server) -> None:
    between = saying("Two pictures.")
    with through(vllm, between) as client:
        client.describe([PICTURE, SMALL], "What are these?", system="-")
    asked = between.prompt.split(f"{START}user\n")[1].split(END)[0]
    assert asked == "Image-1: <3 tiles>\nImage-2: <1 tiles>\nWhat are these?"


def test_each_turn_has_its_own_pictures(vllm: Server) -> None:
    between = saying("Blue.")
    first = {"role": "user", "text": "One", "images": [PICTURE, SMALL]}
    last = {"role": "user", "text": "Two", "images": [SMALL, PICTURE]}
    with through(vllm, between) as client:
        client.chat([first, {"role": "assistant", "text": "Red."}, last], system="-")
    asked = [part.split(END)[0] for part in between.prompt.split(f"{START}user\n")[1:]]
    assert asked == [
        "Image-1: <3 tiles>\nImage-2: <1 tiles>\nOne",
        "Image-1: <1 tiles>\nImage-2: <3 tiles>\nTwo",
    ]


@pytest.mark.parametrize("name", ["ref", "box"])
def test_grounding_marks_pass_where_the_caller_says_so(vllm: Server, name: str) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, f"Where is <{name}>it</{name}>?", grounding=True)
    tokens = between.answers[-1].json()["prompt_token_ids"]
    assert tokens.count(token_id(f"<{name}>")) == tokens.count(token_id(f"</{name}>")) == 1
