"""Pictures: read them, count their tiles, encode what the model will look at.

``sources`` and ``fetch`` get bytes, ``load`` and ``pixels`` make upright RGB of them, ``tiles`` is
InternVL's arithmetic, ``encode`` makes what is sent. Imports ``schema`` and ``errors``.
"""

from internvl_modal.images.encode import estimate, prepare
from internvl_modal.images.names import source_name
from internvl_modal.images.tiles import Tiling
from internvl_modal.schema.results import PreparedImage

__all__ = ["PreparedImage", "Tiling", "estimate", "prepare", "source_name"]
