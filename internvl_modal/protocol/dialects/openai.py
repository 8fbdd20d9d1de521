"""Servers that keep the order of texts and pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from internvl_modal.protocol.dialects.base import _labels
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn, neutralise

if TYPE_CHECKING:
    from internvl_modal.images.encode import PreparedImage


def _interleaved_content(turn: Turn, attach: Callable[[PreparedImage], str]) -> list[Json]:
    parts: list[Json] = []
    for label, image in zip(_labels(turn), turn.images, strict=True):
        if label:
            parts.append({"type": "text", "text": label})
        parts.append({"type": "image_url", "image_url": {"url": attach(image)}})
    return [*parts, {"type": "text", "text": neutralise(turn.text)}]
