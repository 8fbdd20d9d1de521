"""Bring pixels of any mode, depth and colour space to 8-bit sRGB or grey."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from PIL import Image, ImageCms, ImageColor

from internvl_modal.errors import ConfigError, ImageError
from internvl_modal.schema.inputs import ArrayInterface

if TYPE_CHECKING:
    from numpy.typing import NDArray


def flatten(image: Image.Image, background: str, name: str) -> Image.Image:
    """Bring any mode to L, RGB, CMYK or LAB, with ``background`` under what is transparent."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image, name)
    if image.has_transparency_data:
        layered = image.convert("LA") if image.mode == "La" else image
        layered = layered.convert("RGBA")
        canvas = Image.new("RGB", image.size, _color(background))
        canvas.paste(layered, mask=layered.getchannel("A"))
        return canvas
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB")


def _color(background: str) -> tuple[int, ...]:
    try:
        return ImageColor.getrgb(background)[:3]
    except ValueError as error:
        raise ConfigError(
            f"background={background!r} is not a colour", hint="a name such as 'white' or '#ffffff'"
        ) from error


def _to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """Scale deep grey to 8 bits: from 0..1, 0..65535, or else from its own darkest to lightest."""
    deep = (image.convert("I") if image.mode.startswith("I;16") else image).convert("F")
    low, high = cast("tuple[float, float]", deep.getextrema())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("has pixels that are not numbers", source=name, hint="replace NaN and inf")
    if low >= 0 and high <= 65535:
        low, high = 0.0, 1.0 if image.mode == "F" and high <= 1 else 65535.0
    scale = 255.0 / ((high - low) or 1.0)
    shift = 0.5 - low * scale
    return deep.point(lambda value: value * scale + shift).convert("L")


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert to sRGB by the embedded profile; a broken profile is left aside, as viewers do."""
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif icc is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    try:
        if image.mode != "LAB":
            source = ImageCms.ImageCmsProfile(BytesIO(cast(bytes, icc))).profile
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image if image.mode == "L" else image.convert("RGB")
    return cast(Image.Image, converted).convert("L" if image.mode == "L" else "RGB")


def is_srgb(icc: bytes) -> bool:
    """Whether a profile calls itself sRGB."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        return ImageCms.getProfileDescription(profile).startswith("sRGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return False


def from_array(array: ArrayInterface, name: str) -> Image.Image:
    """A picture from (height, width), optionally with 1, 3 or 4 channels; raises ImageError."""
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
    return Image.fromarray(np.ascontiguousarray(_array_to_8_bit(pixels, name)))


def _array_to_8_bit(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    kind, bits = pixels.dtype.kind, pixels.dtype.itemsize * 8
    if kind == "u" and bits == 8:
        return pixels
    if kind == "u" and bits == 16:
        return ((pixels.astype("uint32") + 128) // 257).astype("uint8")
    if kind == "b":
        return pixels.astype("uint8") * 255
    if kind != "f":
        hint = "use uint8, uint16, bool or float 0..1"
        raise ImageError(f"dtype {pixels.dtype} is not supported", source=name, hint=hint)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        hint = "scale it, or use astype('uint8') for 0..255"
        raise ImageError(f"floats lie in {low:g}..{high:g}, not 0..1", source=name, hint=hint)
    return (pixels * 255 + 0.5).astype("uint8")
