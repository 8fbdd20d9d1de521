"""The gateway of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn, neutralise
from internvl_modal.schema.results import Seen

if TYPE_CHECKING:
    from internvl_modal.images.encode import PreparedImage


def _gateway_content(turn: Turn, attach: Callable[[PreparedImage], str]) -> list[Json]:
    parts: list[Json] = [{"type": "text", "text": neutralise(turn.text)}]
    for image in turn.images:
        url = {"url": attach(image), "detail": image.info.max_tiles}
        parts.append({"type": "image_url", "image_url": url})
    return parts


def proven(proof: Mapping[str, object]) -> tuple[Seen, tuple[str, ...]]:
    """``seen`` and the warnings in an answer of our gateway, which has checked it."""
    warnings = proof.get("warnings")
    told = warnings if isinstance(warnings, list) else []
    seen: Seen = "confirmed" if proof.get("seen") == "confirmed" else "unverifiable"
    return seen, tuple(item for item in told if isinstance(item, str))
