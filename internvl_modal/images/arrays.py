"""Numpy arrays as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from internvl_modal.errors import ImageError
from internvl_modal.images.depth import FULL, own_range, sixteen_bit_range
from internvl_modal.schema.inputs import ArrayInterface

if TYPE_CHECKING:
    from numpy.typing import NDArray


def from_array(array: ArrayInterface, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """A picture from (height, width), optionally with 1, 3 or 4 channels; raises ImageError.

    Beside it what a reader should know of how its values were scaled.

    ``name`` is for messages. Channels-first arrays (3, height, width) are refused, as guessing
    would show a picture of three rows. BGR cannot be told from RGB and is taken for RGB.
    """
    import numpy as np

    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if 0 in pixels.shape:
        raise ImageError("has no pixels", source=name)
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ImageError(
            "not the shape of a picture",
            source=name,
            hint="(height, width) or (height, width, 1, 3 or 4); transpose channels-first arrays",
        )
    scaled, warning = _to_8_bit(pixels, name)
    picture = Image.fromarray(np.ascontiguousarray(scaled))
    return picture, (warning,) if warning else ()


def _to_8_bit(pixels: NDArray[Any], name: str) -> tuple[NDArray[Any], str]:
    """The pixels as 0..255, and a warning where their range had to be guessed."""
    kind, bits = pixels.dtype.kind, pixels.dtype.itemsize * 8
    if kind == "u" and bits == 8:
        return pixels, ""
    if kind == "b":
        return pixels.astype("uint8") * 255, ""
    if kind not in "uif":
        hint = "use uint8, uint16, bool or float 0..1"
        raise ImageError(f"dtype {pixels.dtype} is not supported", source=name, hint=hint)
    # Alpha has a range of its own, and must not decide what is white.
    colours = pixels[:, :, :3] if pixels.ndim == 3 else pixels
    low, high = float(colours.min()), float(colours.max())
    if kind == "u" and bits == 16:
        black, white, warning = sixteen_bit_range(high)
        if white == FULL:
            # 257 is 65,535 / 255; rounded, where a shift by eight bits would darken by half a step.
            return ((pixels.astype("uint32") + 128) // 257).astype("uint8"), warning
    else:
        black, white, warning = own_range(low, high, name, unit=kind == "f")
    scaled = (pixels.astype("float32" if bits <= 32 else "float64") - black) * (
        255 / (white - black)
    )
    return (scaled.clip(0, 255) + 0.5).astype("uint8"), warning
