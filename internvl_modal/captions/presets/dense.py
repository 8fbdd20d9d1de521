"""A dense description, as text-to-image models are trained with."""

from __future__ import annotations

from internvl_modal.captions.answer import Answer
from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.rules import Cut, Empty, Leftover, Opener, Refusal, Repetition


class TooShort:
    """Fewer words than a dense description has."""

    name = "too-short"

    def __init__(self, words: int) -> None:
        self.words = words

    def broken(self, answer: Answer) -> bool:
        """Whether it has fewer; text without spaces counts two letters as a word."""
        dense = sum(not letter.isascii() for letter in answer.start) // 2
        return len(answer.words) + dense < self.words


PRESET = Preset(
    "dense",
    "Describe this image in detail, in one paragraph: the subject first, then what surrounds it,"
    " where everything is, colours, materials, light, style, and any text in it. Begin with the"
    " subject, and not with 'The image shows'.",
    {"max_tokens": 600},
    (Empty(), Refusal(), Cut(), Repetition(), Leftover(), Opener(), TooShort(30)),
    finish=str.strip,
    again="Your last description was: {text}\nWrite a better one, in whole sentences and without"
    " repeating yourself.",
)
