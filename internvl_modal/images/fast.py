"""JPEG to JPEG by libjpeg-turbo and OpenCV, where the extra ``fast`` is installed.

Pillow's bicubic takes half of the time of a 12-megapixel photo. OpenCV's is ten times as fast and
looks at four pixels only, which is as good for a shrink of up to a third; above that it aliases,
and Pillow does it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 1.35
"""How much smaller a cubic may make a picture that looks at four pixels, however far apart."""


@lru_cache(maxsize=1)
def is_installed() -> bool:
    """Whether both packages of the extra can be imported.

    Both: decoding by one and resizing by Pillow would gain too little to keep another way.
    """
    try:
        import cv2  # noqa: F401
        import simplejpeg  # noqa: F401
    except ImportError:
        return False
    return True


def shrink(
    data: bytes, least: tuple[int, int], size: tuple[int, int], orientation: int, quality: int
) -> bytes | None:
    """A colour JPEG at ``size`` (as stored), turned upright; None for what only Pillow reads.

    The decoder shrinks to no less than ``least``. It is strict: a file at which it would warn is
    left to Pillow, whose errors are the ones that callers know.
    """
    import numpy as np
    import simplejpeg

    try:
        # libjpeg-turbo halves while it decodes: the full 12 megapixels never exist.
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_width=least[0], min_height=least[1], min_factor=1, strict=True
        )
        pixels = np.ascontiguousarray(_turned(_resized(pixels, size), orientation))
        return bytes(simplejpeg.encode_jpeg(pixels, quality, "RGB", "444"))
    # What simplejpeg raises for anything that it does not take.
    except ValueError:
        return None


def _resized(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    import cv2
    import numpy as np

    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    # The larger of the two ratios decides, as aliasing shows in either direction.
    if max(width / size[0], height / size[1]) <= NEAR:
        near: NDArray[Any] = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        return near
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright, for an EXIF orientation: 5-8 swap the sides, the others only mirror."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
