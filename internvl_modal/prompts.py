"""Turns of a conversation as the ``messages`` of a request, in each server's dialect.

LMDeploy 0.7.3 keeps only the first text item of a message and puts pictures where that text
says ``<IMAGE_TOKEN>``; servers that keep the order of parts get text and pictures interleaved.
This package's gateway numbers the pictures itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from internvl_modal.backends.base import Dialect
    from internvl_modal.images import PreparedImage

Json: TypeAlias = "dict[str, object]"
Label: TypeAlias = Literal["Image-", "Frame"]

IMAGE_TOKEN = "<IMAGE_TOKEN>"  # noqa: S105 - LMDeploy's placeholder (lmdeploy/vl/constants.py)

CONTROL_TOKENS = re.compile(
    r"<(?=/?(?:IMAGE_TOKEN|IMG_CONTEXT|image|img|video|box|ref|quad|s|unk|__media\w*__)>"
    r"|\|[\w-]{1,40}\|>|__media\w*__>)",
    re.IGNORECASE,
)
"""Opening bracket of what templates and tokenizers of InternVL and llama.cpp treat specially."""


@dataclass(frozen=True)
class Turn:
    """One message, its pictures ready to send; ``label`` numbers several of them."""

    role: Literal["user", "assistant", "system"]
    text: str
    images: tuple[PreparedImage, ...] = field(default=(), repr=False)
    label: Label = "Image-"


def neutralise(text: str) -> str:
    """``text`` with every control token broken by a space, so that it is read as plain text."""
    return CONTROL_TOKENS.sub("< ", text)


def render(
    turns: Sequence[Turn], dialect: Dialect, attach: Callable[[PreparedImage], str]
) -> list[Json]:
    """The ``messages`` of a chat completion request; ``attach`` gives a picture's URL."""
    contents = {"lmdeploy": _lmdeploy_content, "gateway": _gateway_content}
    content = contents.get(dialect, _interleaved_content)
    return [
        {
            "role": turn.role,
            "content": content(turn, attach) if turn.images else neutralise(turn.text),
        }
        for turn in turns
    ]


def _lmdeploy_content(turn: Turn, attach: Callable[[PreparedImage], str]) -> list[Json]:
    marks = "".join(f"{label}{IMAGE_TOKEN}\n" for label in _labels(turn))
    parts: list[Json] = [{"type": "text", "text": marks + neutralise(turn.text)}]
    for image in turn.images:
        url = {"url": attach(image), "max_dynamic_patch": image.info.max_tiles}
        parts.append({"type": "image_url", "image_url": url})
    return parts


def _gateway_content(turn: Turn, attach: Callable[[PreparedImage], str]) -> list[Json]:
    parts: list[Json] = [{"type": "text", "text": neutralise(turn.text)}]
    for image in turn.images:
        url = {"url": attach(image), "detail": image.info.max_tiles}
        parts.append({"type": "image_url", "image_url": url})
    return parts


def _interleaved_content(turn: Turn, attach: Callable[[PreparedImage], str]) -> list[Json]:
    parts: list[Json] = []
    for label, image in zip(_labels(turn), turn.images, strict=True):
        if label:
            parts.append({"type": "text", "text": label})
        parts.append({"type": "image_url", "image_url": {"url": attach(image)}})
    return [*parts, {"type": "text", "text": neutralise(turn.text)}]


def _labels(turn: Turn) -> Iterable[str]:
    """InternVL's own wording: nothing before a single picture, else ``Image-1: `` and so on."""
    if len(turn.images) == 1 and turn.label == "Image-":
        return [""]
    return [f"{turn.label}{number}: " for number in range(1, len(turn.images) + 1)]
