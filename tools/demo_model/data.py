"""Training batches: pixels as the engine will make them, chats as the engine will write them.

A batch is a pure function of its number, so a run can stop and go on, or be repeated.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
import torch
from export import MEAN, STD
from numpy.typing import NDArray
from PIL import Image
from scenes import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIZES,
    Scene,
    describe,
    make_scene,
    render,
)
from text import DEFAULT_PROMPT, IMAGE, PROMPTS, SYSTEMS, Tokenizer, chat, random_text
from torch import Tensor
from torch.utils.data import Dataset

NOTHING = -100


@dataclass
class Batch:
    """One step's tensors; `labels` and the per-cell targets hold NOTHING where none applies."""

    pixels: Tensor
    tokens: Tensor
    positions: Tensor
    labels: Tensor
    shape: Tensor
    size: Tensor
    colour: Tensor
    place: Tensor
    background: Tensor
    copies: int


def view(scene: Scene, target: int, rng: random.Random) -> NDArray[np.uint8]:
    """The scene drawn at a random size, sometimes through JPEG, and shrunk.

    llama.cpp shrinks pictures with Pillow's bicubic filter, so this is what it will see.
    """
    if rng.random() < 0.2:
        picture = render(scene, rng.randint(target, 640))
        if rng.random() < 0.6:
            packed = io.BytesIO()
            picture.save(packed, "JPEG", quality=rng.randint(60, 95))
            picture = Image.open(packed)
    else:
        picture = render(scene, rng.randint(target, 2 * target))
    return np.asarray(picture.resize((target, target), Image.Resampling.BICUBIC))


def normalise(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """(batch, 3, size, size) with the mean and deviation the GGUF carries."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def targets(scenes: list[Scene]) -> dict[str, Tensor]:
    """What lies in each cell: shape (0 for nothing), size, colour and place; and the background."""
    shape = torch.zeros(len(scenes), 9, dtype=torch.long)
    size = torch.full((len(scenes), 9), NOTHING)
    colour = torch.full((len(scenes), 9), NOTHING)
    for i, scene in enumerate(scenes):
        for t in scene.things:
            shape[i, t.cell] = SHAPES.index(t.shape) + 1
            size[i, t.cell] = SIZES.index(t.size)
            colour[i, t.cell] = list(COLOURS).index(t.colour)
    background = torch.tensor([list(BACKGROUNDS).index(s.background) for s in scenes])
    found = {"shape": shape, "size": size, "colour": colour, "background": background}
    return {**found, "place": torch.arange(9).repeat(len(scenes), 1)}


def question(rng: random.Random, vocabulary: list[str], plain: bool) -> tuple[str, str | None]:
    """A user turn with its picture, and sometimes a system message."""
    if plain:
        return IMAGE + (DEFAULT_PROMPT if rng.random() < 0.7 else rng.choice(PROMPTS[:8])), None
    asked = rng.choice(PROMPTS)
    if rng.random() < 0.5:
        asked = random_text(rng, vocabulary, 20)
    system = None
    if rng.random() < 0.3:
        system = rng.choice(SYSTEMS) if rng.random() < 0.6 else random_text(rng, vocabulary, 12)
    order = rng.random()
    if order < 0.25:
        return asked + IMAGE, system
    return IMAGE + ("\n" if order < 0.35 else "") + asked, system


class Batches(Dataset[Batch]):
    """Batches by number: `dense` ones hold up to nine shapes, for the vision half alone."""

    def __init__(self, size: int, target: int, image_tokens: int, dense_until: int) -> None:
        self.size = size
        self.target = target
        self.image_tokens = image_tokens
        self.dense_until = dense_until

    def __len__(self) -> int:
        return HELD_OUT // self.size

    def __getitem__(self, number: int) -> Batch:
        rng = random.Random(number)
        dense = number < self.dense_until
        count = None if dense else rng.choices((1, 2, 3), (0.2, 0.35, 0.45))[0]
        seeds = range(number * self.size, (number + 1) * self.size)
        scenes = [make_scene(s, rng.randint(4, 9) if dense else count) for s in seeds]
        pixels = normalise([view(s, self.target, rng) for s in scenes])
        copies = 2 if rng.random() < 0.85 else 1
        tokens, positions, labels = self._texts(scenes[:1] if dense else scenes, rng, copies)
        return Batch(pixels, tokens, positions, labels, copies=copies, **targets(scenes))

    def _texts(self, scenes: list[Scene], rng: random.Random, copies: int) -> tuple[Tensor, ...]:
        """Right-padded ids, positions and next-token labels of question and answer.

        A random gap in the positions after the question stands for a longer one.
        """
        tokenizer = Tokenizer()
        plain = rng.random() < 0.7
        rows = []
        for scene in scenes:
            user, system = question(rng, tokenizer.words, plain)
            asked = tokenizer.encode(chat(user, system), copies * self.image_tokens)
            answer = [*tokenizer.encode(describe(scene)), tokenizer.end]
            gap = 0 if plain or rng.random() < 0.6 else int(400 * rng.random() ** 2)
            rows.append((asked, answer, gap))
        longest = max(len(a) + len(b) for a, b, _ in rows) - 1
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        positions = torch.arange(longest).repeat(len(rows), 1)
        labels = torch.full_like(tokens, NOTHING)
        for i, (asked, answer, gap) in enumerate(rows):
            whole = torch.tensor(asked + answer)
            tokens[i, : len(whole) - 1] = whole[:-1]
            labels[i, len(asked) - 1 : len(whole) - 1] = whole[len(asked) :]
            positions[i, len(asked) - 5 :] += gap
        return tokens, positions, labels
