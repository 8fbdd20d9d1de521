"""LMDeploy before and from 0.13.

0.7.3 keeps only the first text item of a message and puts pictures where that text says
``<IMAGE_TOKEN>``; newer ones join the items, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.dialects.base import Dialect, text_part
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import HttpResponse, Json, json_of
from internvl_modal.protocol.turns import Turn

if TYPE_CHECKING:
    from internvl_modal.models.families import Family
    from internvl_modal.schema.results import PreparedImage

CAPABILITIES = Capabilities("lmdeploy", tokens_per_tile=256, json_schema=False)
"""LMDeploy 0.7.3 with an InternVLChatModel repository, as this package deploys it."""

ZERO_SEED = 2**32 - 1
"""Sent for ``seed=0``, which 0.7.3 takes for no seed."""

IMAGE_TOKEN = "<IMAGE_TOKEN>"  # noqa: S105  # nosec B105  # lmdeploy/vl/constants.py


class LMDeploy(Dialect):
    """0.7.3, and what is common to all of them.

    ``top_k`` 1 is greedy; ``temperature`` 0 divides by 1e-6 there, which comes near it.
    """

    name = "lmdeploy"
    fixed_tiles = None
    assumed = False
    greedy: ClassVar = {"top_k": 1}
    zero_seed = ZERO_SEED
    most_stops = None
    parameters: ClassVar[Mapping[str, str]] = {
        **{name: name for name in ("logit_bias", "logprobs", "top_logprobs", "min_p")},
        **{name: name for name in ("ignore_eos", "skip_special_tokens", "min_new_tokens")},
        "min_tokens": "min_new_tokens",
    }
    """The penalties of presence and frequency are read there, and nothing is done with them."""
    # Both are needed: 0.13 has the new behaviour and still answers ``/health`` with an empty body.
    version_paths: ClassVar[tuple[str, ...]] = ("health", "openapi.json")

    def version(self, path: str, response: HttpResponse) -> Dialect | None:
        """``/health`` has a JSON body from 0.14 on, and 0.13 lists ``/v1/messages``."""
        document = json_of(response.body)
        if path == "health":
            told = isinstance(document, dict) and "status" in document
        else:
            paths = document.get("paths") if isinstance(document, dict) else None
            told = isinstance(paths, dict) and "/v1/messages" in paths
        return LMDeploy013() if told else None

    def capabilities(self, family: Family | None) -> Capabilities:
        """An ``-HF`` repository takes no limit: its own holds."""
        known = super().capabilities(family)
        if family is not None and family.converted:
            return replace(known, max_tiles=12)
        return known

    def content(
        self, turn: Turn, call: ChatCall, attach: Callable[[PreparedImage], str]
    ) -> list[Json]:
        """One text with a placeholder for each picture, then the pictures."""
        del call
        pictures = [self.picture(image, attach(image)) for image in turn.images]
        return [text_part(turn.marked(IMAGE_TOKEN)), *pictures]

    def picture(self, image: PreparedImage, url: str) -> Json:
        """``max_dynamic_patch`` is InternVL's name for the limit."""
        limit = image.info.max_tiles
        return {"type": "image_url", "image_url": {"url": url, "max_dynamic_patch": limit}}


class LMDeploy013(LMDeploy):
    """0.13 and later, where a seed of 0 is one and TurboMind holds answers to a schema."""

    name = "lmdeploy-0.13"
    json_schema = True
    zero_seed = 0
    version_paths = ()
