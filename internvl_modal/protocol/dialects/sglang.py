"""SGLang.

Its InternVL processor follows LMDeploy's fields; a wrong guess of the grid is a warning and never
an error, since on a tie its rule may differ from ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from internvl_modal.protocol.dialects.base import SAMPLING, Dialect
from internvl_modal.protocol.http import Json

if TYPE_CHECKING:
    from internvl_modal.schema.results import PreparedImage


class SGLang(Dialect):
    """Takes a limit of tiles with each picture; on a tie it may choose a larger grid than ours."""

    name = "sglang"
    json_schema = True
    fixed_tiles = None
    most_stops = None
    parameters: ClassVar = {name: name for name in SAMPLING} | {"min_new_tokens": "min_tokens"}

    def picture(self, image: PreparedImage, url: str) -> Json:
        """``max_dynamic_patch`` stands beside the URL, as with LMDeploy."""
        limit = image.info.max_tiles
        return {"type": "image_url", "image_url": {"url": url, "max_dynamic_patch": limit}}
