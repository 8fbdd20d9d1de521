"""Turns of a conversation, and the texts in them that must not be read as control tokens.

A user's text may hold ``<IMAGE_TOKEN>`` or ``<|im_end|>``, by accident or not. Engines find such
tokens in the rendered prompt and cannot know who wrote them: a picture's place could be moved, or a
turn ended and another begun. A space inside keeps the text readable and the token broken.

>>> neutralise("What is <IMAGE_TOKEN>? <|im_end|>")
'What is < IMAGE_TOKEN>? < |im_end|>'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from internvl_modal.schema.results import PreparedImage


Label: TypeAlias = Literal["Image-", "Frame"]


CONTROL_TOKENS = re.compile(
    r"<(?=/?(?:IMAGE_TOKEN|IMG_CONTEXT|image|img|video|box|ref|quad|s|unk|__media\w*__)>"
    r"|\|[\w-]{1,40}\|>|__media\w*__>)",
    re.IGNORECASE,
)
"""Opening bracket of what templates and tokenizers of InternVL and llama.cpp treat specially."""

_GROUNDING = re.compile(r"</?(?:ref|box)>")
"""InternVL's own marks of what to find in a picture, and where it was found."""


@dataclass(frozen=True)
class Turn:
    """One message, its pictures ready to send; ``label`` numbers several of them.

    ``images`` come before the text in every template of InternVL, so a turn has no order of parts.
    """

    role: Literal["user", "assistant", "system"]
    text: str
    images: tuple[PreparedImage, ...] = field(default=(), repr=False)
    label: Label = "Image-"
    grounding: bool = False
    """Whether ``<ref>`` and ``<box>`` in the text are meant."""

    @property
    def plain(self) -> str:
        """``text`` with every control token that is not meant broken by a space."""
        return neutralise(self.text, grounding=self.grounding)

    @property
    def labels(self) -> list[str]:
        """InternVL's own words before each picture: ``Image-1: ``, none before a single one."""
        # As in InternVL's own demos; a frame is numbered even when it is alone.
        if len(self.images) == 1 and self.label == "Image-":
            return [""]
        return [f"{self.label}{number}: " for number in range(1, len(self.images) + 1)]

    def marked(self, placeholder: str) -> str:
        """The text after its pictures, each of them a line with its label and ``placeholder``."""
        return "".join(f"{label}{placeholder}\n" for label in self.labels) + self.plain


def neutralise(text: str, *, grounding: bool = False) -> str:
    """``text`` with every control token broken by a space, so that it is read as plain text.

    ``grounding`` leaves ``<ref>``, ``</ref>``, ``<box>`` and ``</box>`` as they are.
    """

    def broken(found: re.Match[str]) -> str:
        return "<" if grounding and _GROUNDING.match(text, found.start()) else "< "

    return CONTROL_TOKENS.sub(broken, text) if "<" in text else text
