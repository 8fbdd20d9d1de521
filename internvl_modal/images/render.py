"""From a picture's pixels to those that are sent: upright, 8-bit, at the size that is wanted.

The order is what saves time and memory: the decoder halves as far as it may, averages take the rest
down to twice the size, bicubic does the last step, and only then are colours converted and the
picture turned, when it is smallest.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, cast

from PIL import Image, Jpeg2KImagePlugin, JpegImagePlugin

from internvl_modal.errors import ImageError
from internvl_modal.images.fast import NEAR
from internvl_modal.images.load import Picture
from internvl_modal.images.pixels import flatten, is_plain, lifted, to_srgb

MAX_BYTES = 400_000_000
"""Most memory to decode one picture: 95 megapixels of RGB, as Pillow holds them."""
GAP = 2
"""Pictures more than twice this much too large are first made smaller by whole squares.

Averaging squares is several times faster than bicubic; alone it would blur.
"""
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture with this EXIF orientation upright."""
_DEPTHS = {"1": 1, "L": 1, "P": 1}
_DECODERS = {"WEBP": 12.2, "AVIF": 5.3, "HEIF": 4.5, "JPEG2000": 20.3}
"""Bytes for each pixel that a decoder holds beside the picture, as measured.

Of the decoders in Pillow 11.3 and pillow-heif, on 64 bits.
"""

Size = tuple[int, int]


def render(
    picture: Picture, size: Size, background: str, max_bytes: int
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture upright at ``size``, 8-bit, in mode RGB or L, and warnings about its values.

    A photograph that its decoder brought near to ``size`` is in YCbCr, as JPEGs are inside.
    Raises ImageError for damaged files and for those that need more than ``max_bytes``.
    """
    _keep_memory()
    turn = None if picture.format == "TIFF" else _TURN.get(picture.orientation)  # Pillow turns them
    stored = size_stored(picture, size)
    size_decoded = _draft(picture, stored)
    check_memory(picture, size_decoded, stored, max_bytes)
    icc = picture.icc
    # Only ``_draft`` sets that mode, and only where the colours have half the resolution anyway.
    if picture.image.mode == "YCbCr" and picture.survey is not None:
        image, warning = _resized_by_channel(picture.decode(), stored), ""
    else:
        image, warning = _rendered(picture, stored, background)
        image = to_srgb(image, icc)
    if turn is not None:
        image = image.transpose(turn)
    image = image.copy() if image is picture.image else image
    # EXIF and profiles stay behind: what is sent is upright sRGB, and a place or a name in EXIF is
    # nobody's business.
    image.info = {}
    return image, (warning,) if warning else ()


@lru_cache(maxsize=1)
def _keep_memory() -> None:
    """Let Pillow use memory again that it has done with, unless PILLOW_BLOCKS_MAX says how much.

    Two of its blocks, of 16 MB at most. To get them from the system anew, page by page, takes a
    sixth of the time for a photo. https://pillow.readthedocs.io/en/stable/reference/block_allocator.html
    """
    pool: Any = Image.core  # type: ignore[attr-defined]
    if "PILLOW_BLOCKS_MAX" not in os.environ and not pool.get_blocks_max():
        pool.set_blocks_max(2)


def size_stored(picture: Picture, size: Size) -> Size:
    """An upright size as the file has it."""
    return size[::-1] if picture.format != "TIFF" and picture.orientation >= 5 else size


def _rendered(picture: Picture, stored: Size, background: str) -> tuple[Image.Image, str]:
    """Decode, flatten and resize in one mode, and a warning about the values."""
    decoded = picture.decode()
    factor = _factor(decoded.size, stored)
    full = picture.format == "PPM"
    # Pillow gives 32 bits, and programs write 65,535 as the largest whatever a sensor has filled.
    if picture.survey is not None and picture.survey.sixteen_bits:
        decoded = decoded.convert("I;16")
    decoded, lift = lifted(decoded) if picture.deep_colour else (decoded, "")
    image, warning = flatten(decoded, background, picture.name, full=full, factor=factor)
    if image.size != stored:
        box = (0.0, 0.0, decoded.width / factor, decoded.height / factor)
        image = image.resize(stored, Image.Resampling.BICUBIC, box=box)
    return image, warning or lift


def _goes_by_channel(picture: Picture, stored: Size) -> bool:
    """Whether a JPEG holds fewer colours than pixels, and will be decoded near to ``stored``."""
    image = cast(JpegImagePlugin.JpegImageFile, picture.image)
    # JFIF's numbers of the channels; Adobe's files can have RGB under others.
    ycbcr = [layer[0] for layer in image.layer] == [1, 2, 3]
    if not ycbcr or image.info.get("adobe_transform", 1) != 1 or picture.icc is not None:
        return False
    samples = [down * across for _, down, across, _ in image.layer]
    if samples[0] <= max(samples[1:]):
        return False
    least = least_size(picture, stored)
    scale = min(image.width // least[0], image.height // least[1])
    halved = 1 << min(3, scale.bit_length() - 1)
    ratio = max(image.width / halved / stored[0], image.height / halved / stored[1])
    return 1 < ratio <= NEAR


def _resized_by_channel(image: Image.Image, size: Size) -> Image.Image:
    """Brightness by bicubic, colours by their nearest pixel: the file has half as many of them."""
    ways = (Image.Resampling.BICUBIC, Image.Resampling.NEAREST, Image.Resampling.NEAREST)
    channels = zip(image.split(), ways, strict=True)
    return Image.merge("YCbCr", [channel.resize(size, way) for channel, way in channels])


def memory_needed(picture: Picture, size: Size) -> int:
    """Bytes to decode a picture and to make it smaller, known from its header."""
    stored = size_stored(picture, size)
    return _memory(picture, _draft(picture, stored), stored)


def check_memory(picture: Picture, decoded: Size, stored: Size, max_bytes: int) -> None:
    """Refuse a picture that would take more than ``max_bytes`` to decode and to make smaller."""
    needed = _memory(picture, decoded, stored)
    if needed > max_bytes:
        width, height = picture.image.size
        raise ImageError(
            f"{width}x{height} {picture.format} takes {needed:,} bytes to decode, "
            f"more than {max_bytes:,}",
            source=picture.name,
            hint="shrink it, or raise max_bytes_decoded",
        )


def _memory(picture: Picture, decoded: Size, stored: Size) -> int:
    """The larger of what decoding takes and what making it smaller takes, in bytes."""
    image, survey = picture.image, picture.survey
    pixels = decoded[0] * decoded[1]
    depth = 2 if image.mode.startswith("I;16") else _DEPTHS.get(image.mode, 4)
    own = 0 if survey is None else pixels * depth
    extra = 0 if survey is None else survey.extra_bytes
    extra += own if picture.deep_colour else 0  # the copy in which the range is another
    while_decoding = own + int(pixels * _DECODERS.get(image.format or "", 0)) + extra
    factor = _factor(decoded, stored)
    after = own + stored[0] * decoded[1] // factor * 4
    if not is_plain(image) or factor > 1:
        grey = image.mode in ("1", "F", "L") or image.mode.startswith("I")
        after += pixels // factor**2 * (1 if grey else 4)
    return max(while_decoding, after)


def _factor(size: Size, wanted: Size) -> int:
    """By how much to average first, so that ``GAP`` times the wanted size is left."""
    return max(1, int(min(size[0] / wanted[0], size[1] / wanted[1]) / GAP))


def _draft(picture: Picture, stored: Size) -> Size:
    """Let the decoder halve a picture that is much too large; returns the size it will have."""
    width, height = picture.image.size
    if picture.survey is None:
        return width, height
    if picture.format in ("JPEG", "MPO"):
        mode = "YCbCr" if _goes_by_channel(picture, stored) else None
        picture.image.draft(mode, least_size(picture, stored))
    elif picture.format == "JPEG2000":
        # JPEG 2000 holds the picture at half its size within itself, so many times over.
        halvings = min(picture.survey.halvings, _factor((width, height), stored).bit_length() - 1)
        cast(Jpeg2KImagePlugin.Jpeg2KImageFile, picture.image).reduce = halvings
        half = 1 << halvings >> 1
        return (width + half) >> halvings, (height + half) >> halvings
    return picture.image.size


def least_size(picture: Picture, stored: Size) -> Size:
    """The least the JPEG decoder may shrink to: it halves well, and quarters badly.

    A third of the full size is the bound between two scales of the decoder (1/2 and 1/4).
    """
    sides = zip(stored, picture.image.size, strict=True)
    width, height = (min(2 * wanted, max(wanted, full // 3)) for wanted, full in sides)
    return width, height
