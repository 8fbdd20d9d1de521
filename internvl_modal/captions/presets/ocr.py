"""The text in a picture, as it stands there."""

from __future__ import annotations

from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.rules import Cut, Empty, Leftover, Refusal, Repetition

PRESET = Preset(
    "ocr",
    "Transcribe all the text in this image, exactly as it is written, line by line, in reading"
    " order. Write nothing else. If there is no text, write NO TEXT.",
    {"max_tokens": 4096, "detail": "high"},
    (Empty(), Refusal(), Cut(), Repetition(), Leftover()),
    finish=str.strip,
)
