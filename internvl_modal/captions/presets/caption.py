"""A caption of one sentence."""

from __future__ import annotations

from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.presets.limits import TooLong
from internvl_modal.captions.rules import Cut, Empty, Leftover, OneWord, Opener, Refusal, Repetition

PRESET = Preset(
    "caption",
    "Write a caption of one sentence for this image. Begin with its subject, and not with 'The"
    " image shows'.",
    {"max_tokens": 120},
    (
        Empty(),
        Refusal(),
        OneWord(),
        Cut(),
        Repetition(),
        Leftover(),
        Opener(),
        TooLong(400),
    ),
    finish=str.strip,
    again="Your last caption was: {text}\nWrite a better one: one whole sentence about what is"
    " to be seen.",
)
