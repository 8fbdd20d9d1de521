"""Pictures: read them, count their tiles, encode what the model will look at.

``sources`` and ``fetch`` get bytes, ``load`` and ``pixels`` make upright RGB of them, ``tiles`` is
InternVL's arithmetic, ``encode`` makes what is sent. Imports ``schema`` and ``errors``.
"""

from typing import TYPE_CHECKING

from internvl_modal.images.names import source_name
from internvl_modal.images.tiles import Tiling
from internvl_modal.schema.results import PreparedImage

if TYPE_CHECKING:
    from internvl_modal.images.encode import estimate as estimate
    from internvl_modal.images.encode import prepare as prepare

__all__ = ["PreparedImage", "Tiling", "estimate", "prepare", "source_name"]


def __getattr__(name: str) -> object:
    """``estimate`` and ``prepare``, which need PIL, once they are asked for."""
    if name not in ("estimate", "prepare"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from internvl_modal.images import encode

    return getattr(encode, name)
