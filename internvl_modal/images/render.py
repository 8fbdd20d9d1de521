"""From a picture's pixels to those that are sent: upright, 8-bit, at the size that is wanted."""

from __future__ import annotations

from typing import cast

from PIL import Image, Jpeg2KImagePlugin

from internvl_modal.errors import ImageError
from internvl_modal.images.load import Picture
from internvl_modal.images.pixels import flatten, is_plain, to_srgb

MAX_BYTES = 400_000_000
"""Most memory to decode one picture: 95 megapixels of RGB, as Pillow holds them."""
GAP = 2
"""Pictures more than twice this much too large are first made smaller by whole squares."""
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
"""Bytes for each pixel that a decoder holds beside the picture, as measured."""

Size = tuple[int, int]


def render(
    picture: Picture, size: Size, background: str, max_bytes: int
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture upright at ``size``, 8-bit, in mode RGB or L, and warnings about its values.

    Raises ImageError for damaged files and for those that need more than ``max_bytes``.
    """
    turn = None if picture.format == "TIFF" else _TURN.get(picture.orientation)  # Pillow turns them
    stored = size[::-1] if turn is not None and picture.orientation >= 5 else size
    size_decoded = _draft(picture, stored)
    check_memory(picture, size_decoded, stored, max_bytes)
    icc = picture.icc
    decoded = picture.decode()
    factor = _factor(decoded.size, stored)
    full = picture.format == "PPM"
    image, warning = flatten(decoded, background, picture.name, full=full, factor=factor)
    if image.size != stored:
        box = (0.0, 0.0, decoded.width / factor, decoded.height / factor)
        image = image.resize(stored, Image.Resampling.BICUBIC, box=box)
    image = to_srgb(image, icc)
    if turn is not None:
        image = image.transpose(turn)
    image = image.copy() if image is picture.image else image
    image.info = {}
    return image, (warning,) if warning else ()


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
    while_decoding = own + int(pixels * _DECODERS.get(image.format or "", 0)) + extra
    factor = _factor(decoded, stored)
    after = own + stored[0] * decoded[1] // factor * 4
    if not is_plain(image) or factor > 1:
        grey = image.mode in ("1", "F", "L") or image.mode.startswith("I")
        after += pixels // factor**2 * (1 if grey else 4)
    return max(while_decoding, after)


def _factor(size: Size, wanted: Size) -> int:
    return max(1, int(min(size[0] / wanted[0], size[1] / wanted[1]) / GAP))


def _draft(picture: Picture, stored: Size) -> Size:
    """Let the decoder halve a picture that is much too large; returns the size it will have."""
    width, height = picture.image.size
    if picture.survey is None:
        return width, height
    if picture.format in ("JPEG", "MPO"):
        picture.image.draft(None, (_least(stored[0], width), _least(stored[1], height)))
    elif picture.format == "JPEG2000":
        halvings = min(picture.survey.halvings, _factor((width, height), stored).bit_length() - 1)
        cast(Jpeg2KImagePlugin.Jpeg2KImageFile, picture.image).reduce = halvings
        half = 1 << halvings >> 1
        return (width + half) >> halvings, (height + half) >> halvings
    return picture.image.size


def _least(wanted: int, stored: int) -> int:
    """The least the JPEG decoder may shrink a side to: it halves well, and quarters badly."""
    return min(2 * wanted, max(wanted, stored // 3))
