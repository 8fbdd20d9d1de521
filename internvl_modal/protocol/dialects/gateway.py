"""The gateway of this package.

A client behind the gateway must not do twice what the gateway does: label pictures, send schemas,
verify tokens. Nor can it, since it does not know what engine stands behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.dialects.base import Dialect, text_part
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn
from internvl_modal.protocol.verification import Sight
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.results import Seen, Usage

if TYPE_CHECKING:
    from internvl_modal.models.families import Family
    from internvl_modal.schema.results import PreparedImage


class Gateway(Dialect):
    """Numbers the pictures and checks the answers itself, and says so."""

    name = "gateway"
    # ``extract`` asks and repairs by itself then, with one engine's tokens and not two loops'
    # worth.
    json_schema = False
    fixed_tiles = None
    assumed = False
    most_stops = None

    def capabilities(self, family: Family | None) -> Capabilities:
        """The tokens of its tiles are its own affair."""
        return super().capabilities(None)

    def content(
        self, turn: Turn, call: ChatCall, attach: Callable[[PreparedImage], str]
    ) -> list[Json]:
        """The text, then the pictures without labels."""
        del call
        pictures = [self.picture(image, attach(image)) for image in turn.images]
        return [text_part(turn.plain), *pictures]

    def picture(self, image: PreparedImage, url: str) -> Json:
        """``detail`` may be a number there."""
        limit = image.info.max_tiles
        return {"type": "image_url", "image_url": {"url": url, "detail": limit}}

    def sampling(self, options: DescribeOptions) -> Json:
        """With ``grounding``: the gateway takes marks out of texts unless it is told."""
        return super().sampling(options) | ({"grounding": True} if options.grounding else {})

    def sight(
        self, call: ChatCall, usage: Usage | None, body: Json, *, request_id: str | None, text: str
    ) -> Sight:
        """``seen`` and ``warnings`` of the answer itself."""
        del call, usage, request_id, text
        warnings = body.get("warnings")
        told = warnings if isinstance(warnings, list) else []
        seen: Seen = "confirmed" if body.get("seen") == "confirmed" else "unverifiable"
        return Sight(seen, tuple(item for item in told if isinstance(item, str)))
