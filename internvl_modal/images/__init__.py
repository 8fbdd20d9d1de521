"""Pictures: read them, count their tiles, encode what the model will look at."""

from internvl_modal.images.address import source_name
from internvl_modal.images.encode import PreparedImage, estimate, prepare
from internvl_modal.images.tiles import Tiling

__all__ = ["PreparedImage", "Tiling", "estimate", "prepare", "source_name"]
