"""LMDeploy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from internvl_modal.protocol.dialects.base import _labels
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn, neutralise

if TYPE_CHECKING:
    from internvl_modal.images.encode import PreparedImage


CAPABILITIES = Capabilities("lmdeploy", tokens_per_tile=256)


IMAGE_TOKEN = "<IMAGE_TOKEN>"  # noqa: S105 - LMDeploy's placeholder (lmdeploy/vl/constants.py)


def _lmdeploy_content(turn: Turn, attach: Callable[[PreparedImage], str]) -> list[Json]:
    marks = "".join(f"{label}{IMAGE_TOKEN}\n" for label in _labels(turn))
    parts: list[Json] = [{"type": "text", "text": marks + neutralise(turn.text)}]
    for image in turn.images:
        url = {"url": attach(image), "max_dynamic_patch": image.info.max_tiles}
        parts.append({"type": "image_url", "image_url": url})
    return parts
