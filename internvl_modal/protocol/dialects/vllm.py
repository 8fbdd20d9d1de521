"""vLLM.

Whether a request may set a limit of tiles is decided by how the server was started, and it tells
nobody: ``tiles_question`` finds out with one token, once for a client, and only where the limit
matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from internvl_modal.images.tiles import Tiling
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.dialects.base import SAMPLING, Dialect, text_part
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.options import DETAIL_TILES, Detail

if TYPE_CHECKING:
    from internvl_modal.schema.results import PreparedImage

IMAGE_TOKEN = "<image>"  # noqa: S105  # nosec B105  # model_executor/models/internvl.py


class VLLM(Dialect):
    """Takes four stop strings at most, and a limit of tiles only if it was started to.

    That is ``--trust-request-mm-kwargs``; without it a request with the limit is refused. What
    the server was started with instead (``--mm-processor-kwargs``) it never says.
    """

    name = "vllm"
    json_schema = True
    parameters: ClassVar = {name: name for name in SAMPLING} | {"min_new_tokens": "min_tokens"}

    def tiling(self, capabilities: Capabilities, detail: Detail) -> Tiling:
        """Where each request may choose, the limit of the model's own config does not bind.

        With "auto" each picture has a limit of its own, and a request can set only one.
        """
        tiling = super().tiling(capabilities, detail)
        # The field is the whole request's: with "auto" the picture that needs most would set it for
        # all.
        free = capabilities.tiles_by_request and detail != "auto"
        return replace(tiling, max_tiles=None) if free else tiling

    def tiles_question(self, capabilities: Capabilities, detail: Detail, model: str) -> Json | None:
        """One word and the field, which is refused as a field; the usual detail needs none."""
        # The model's own config says 12 as well, so nothing has to be asked for.
        usual = detail in ("medium", "auto", DETAIL_TILES["medium"])
        if usual or capabilities.tiles_by_request is not None:
            return None
        return {
            "model": model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
            "mm_processor_kwargs": {"max_dynamic_patch": DETAIL_TILES["medium"]},
        }

    def tile_limit(self, call: ChatCall) -> Json:
        """One limit for all pictures of a request: the largest that one of them may have."""
        if not call.images or not call.capabilities.tiles_by_request:
            return {}
        limit = max(image.info.max_tiles for image in call.images)
        return {"mm_processor_kwargs": {"max_dynamic_patch": limit}}

    def content(
        self, turn: Turn, call: ChatCall, attach: Callable[[PreparedImage], str]
    ) -> list[Json]:
        """Placeholders keep labels and pictures together.

        Without them the templates put every picture before all text. Only InternVLChatModel is
        known to take ``<image>``.
        """
        placed = call.family is not None and not call.family.converted
        if not placed or not any(turn.labels):
            return super().content(turn, call, attach)
        pictures = [self.picture(image, attach(image)) for image in turn.images]
        return [text_part(turn.marked(IMAGE_TOKEN)), *pictures]
