"""Turns of a conversation as the ``messages`` of a request, in each server's dialect.

LMDeploy 0.7.3 keeps only the first text item of a message and puts pictures where that text
says ``<IMAGE_TOKEN>``; servers that keep the order of parts get text and pictures interleaved.
This package's gateway numbers the pictures itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from internvl_modal.images.encode import PreparedImage


Label: TypeAlias = Literal["Image-", "Frame"]


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
