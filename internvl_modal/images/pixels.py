"""Bring pixels of any mode, depth and colour space to 8-bit sRGB or grey, in bounded memory.

LMDeploy's ``convert("RGB")`` clips 16-bit grey to white and shows what lies under transparency,
often black. Done here, every server sees the same picture. Work goes in strips, so that a picture
of 200 megapixels takes its own memory and little more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import cast

from PIL import Image, ImageCms, ImageColor

from internvl_modal.errors import ConfigError
from internvl_modal.images.depth import TWELVE_BITS, own_range, sixteen_bit_range

STRIP = 4_000_000
"""Pixels converted at once.

Some 16 MB as RGBA.
"""
_PLAIN = ("L", "RGB", "CMYK", "LAB")

Convert = Callable[[Image.Image], Image.Image]
"""Brings a strip to 8 bits and to its smaller size."""


def is_plain(image: Image.Image) -> bool:
    """Whether ``flatten`` has nothing to do."""
    return image.mode in _PLAIN and not image.has_transparency_data


def flatten(
    image: Image.Image, background: str, name: str, *, full: bool = False, factor: int = 1
) -> tuple[Image.Image, str]:
    """Bring any mode to L, RGB, CMYK or LAB, with ``background`` under what is transparent.

    ``full``: whole numbers are known to reach from 0 to 65,535. The result is ``factor`` times
    smaller, by means of squares. Beside it a warning where values were stretched.

    ``name`` is for messages; raises ImageError for pixels that are no numbers.
    """
    warning = ""
    if is_plain(image):
        return _smaller(image, factor), warning
    if image.mode.startswith("I") or image.mode == "F":
        convert, warning = _deep(image, name, full, factor)
    else:
        convert = _shallow(image, background, factor)
    canvas: Image.Image | None = None
    for top, strip in _strips(image, factor):
        part = convert(strip)
        if canvas is None:
            if part.height * factor >= image.height:
                return part, warning
            size = -(-image.width // factor), -(-image.height // factor)
            canvas = Image.new(part.mode, size)
        # Strips are whole multiples of ``factor``, so no row is averaged over two of them.
        canvas.paste(part, (0, top // factor))
    assert canvas is not None  # nosec B101  # a picture has a strip: for the type checker
    return canvas, warning


def lifted(image: Image.Image) -> tuple[Image.Image, str]:
    """The upper 8 of 16 bits of colour, brought to the range they use, and a warning.

    Where a sensor has filled 12 bits or fewer the picture would be black; 16 steps are left of it.
    """
    bands = image.getbands()
    ends = cast("tuple[tuple[int, int], ...]", image.getextrema())
    high = max(most for band, (_, most) in zip(bands, ends, strict=True) if band != "A")
    if not 0 < high < TWELVE_BITS >> 8:
        return image, ""
    white = (1 << high.bit_length()) - 1
    table = [min(255, value * 255 // white) for value in range(256)]
    tables = [value for band in bands for value in (range(256) if band == "A" else table)]
    top = (white + 1 << 8) - 1
    warning = f"its 16-bit colours are shown from 0 to {top}, in {white + 1} steps"
    return image.point(tables), warning


def _smaller(image: Image.Image, factor: int) -> Image.Image:
    # JPEG 2000 files have an attribute of this name.
    return Image.Image.reduce(image, factor) if factor > 1 else image


def _strips(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """(top row, full-width part) of a picture, each of whole multiples of ``factor`` rows."""
    rows = max(1, STRIP // image.width // factor) * factor
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def checked_colour(background: str) -> str:
    """``background``; raises ConfigError where it is not a colour."""
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        raise ConfigError(
            f"background={background!r} is not a colour", hint="a name such as 'white' or '#ffffff'"
        ) from error
    return background


def _shallow(image: Image.Image, background: str, factor: int) -> Convert:
    """What brings a strip of 8-bit pixels to a plain mode."""
    colour = ImageColor.getrgb(background)[:3]
    convert: Convert = _plain
    if image.has_transparency_data:
        convert = _palette_on(image, colour) if image.mode == "P" else _on(colour)
    return lambda part: _smaller(convert(part), factor)


def _plain(image: Image.Image) -> Image.Image:
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in _PLAIN else image.convert("RGB")


def _on(colour: tuple[int, ...]) -> Convert:
    """What puts ``colour`` under a strip by its alpha."""

    def onto(image: Image.Image) -> Image.Image:
        # Premultiplied grey, which Pillow converts to nothing but LA.
        layered = image.convert("LA") if image.mode == "La" else image
        layered = layered.convert("RGBA")
        canvas = Image.new("RGB", image.size, colour)
        canvas.paste(layered, mask=layered.getchannel("A"))
        return canvas

    return onto


def _palette_on(image: Image.Image, colour: tuple[int, ...]) -> Convert:
    """Put the colour under the 256 entries of the palette instead of under every pixel."""
    entries = image.crop((0, 0, 256, 1))
    entries.putdata(range(256))
    palette = _on(colour)(entries).tobytes()

    def opaque(part: Image.Image) -> Image.Image:
        # The strip shares its palette with the picture.
        part = part.copy()
        part.putpalette(palette)
        part.info.pop("transparency", None)
        return part.convert("RGB")

    return opaque


def _deep(image: Image.Image, name: str, full: bool, factor: int) -> tuple[Convert, str]:
    """How to scale deep grey to 8 bits, and a warning."""
    # Two passes: the range must be known before the first strip is scaled.
    found = [cast("tuple[float, float]", _wide(part).getextrema()) for _, part in _strips(image)]
    low, high = min(each[0] for each in found), max(each[1] for each in found)
    if image.mode.startswith("I;16"):
        black, white, warning = sixteen_bit_range(high)
    elif full:
        black, white, warning = 0.0, 65_535.0, ""
    else:
        black, white, warning = own_range(low, high, name, unit=image.mode == "F")
    scale = 255.0 / (white - black)
    shift = 0.5 - black * scale

    def scaled(part: Image.Image) -> Image.Image:
        small = _smaller(_wide(part), factor).convert("F")
        return small.point(lambda value: value * scale + shift).convert("L")

    return scaled, warning


def _wide(image: Image.Image) -> Image.Image:
    return image.convert("I") if image.mode.startswith("I;16") else image


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert to sRGB by the embedded profile; a broken profile is left aside, as viewers do.

    Without it a photo in Adobe RGB or Display P3 looks pale to the model.
    """
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif icc is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    try:
        if image.mode != "LAB":
            source = ImageCms.ImageCmsProfile(BytesIO(cast(bytes, icc))).profile
        target = ImageCms.createProfile("sRGB")
        # littleCMS; a profile that does not fit the mode raises, and the pixels stay as they are.
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
