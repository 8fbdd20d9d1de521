"""Which dialect a server speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from internvl_modal.images.tiles import Tiling
from internvl_modal.protocol.dialects.gateway import _gateway_content
from internvl_modal.protocol.dialects.lmdeploy import _lmdeploy_content
from internvl_modal.protocol.dialects.openai import _interleaved_content
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn, neutralise

if TYPE_CHECKING:
    from internvl_modal.images.encode import PreparedImage
    from internvl_modal.protocol.endpoint import Dialect


def _tiling(capabilities: Capabilities) -> Tiling:
    return Tiling(
        tile_pixels=capabilities.tile_pixels,
        tokens_per_tile=capabilities.tokens_per_tile or 256,
        max_tiles=capabilities.max_tiles,
        rule="llama.cpp" if capabilities.dialect == "llamacpp" else "internvl",
    )


def _capabilities(model: str, listed: Sequence[Json]) -> Capabilities:
    """What ``owned_by`` in ``/v1/models`` tells: each server signs its own name there."""
    owner = str(listed[0].get("owned_by")) if listed else ""
    tokens = 256 if "internvl" in model.lower() else None
    if owner == "internvl-modal":
        return Capabilities("gateway")
    if owner == "lmdeploy":
        return Capabilities("lmdeploy", tokens_per_tile=tokens)
    if owner == "llamacpp":
        return Capabilities("llamacpp", tokens_per_tile=tokens, max_tiles=12, json_schema=True)
    return Capabilities(tokens_per_tile=tokens, max_tiles=12, json_schema=owner == "vllm")


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
