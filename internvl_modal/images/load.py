"""Open any picture and render it as the model should see it: upright, 8-bit, RGB or grey."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import cast

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from internvl_modal.errors import ImageError
from internvl_modal.images.names import source_name
from internvl_modal.images.pixels import flatten, from_array, is_srgb, to_srgb
from internvl_modal.images.sources import Fetch, read_bytes
from internvl_modal.schema.inputs import BinaryFile, ImageSource

Opener = Callable[[BytesIO], Image.Image]

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


@dataclass(frozen=True)
class Picture:
    """A picture whose header has been read; its pixels may still be undecoded."""

    name: str
    image: Image.Image = field(repr=False)
    data: bytes | None = field(repr=False)
    """The encoded file, None for pictures that came as pixels."""
    format: str
    size: tuple[int, int]
    """Width and height, upright."""
    orientation: int
    frames: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as the file has them."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    @property
    def icc(self) -> bytes | None:
        """The embedded colour profile, unless it is sRGB."""
        profile = self.image.info.get("icc_profile")
        return profile if isinstance(profile, bytes) and not is_srgb(profile) else None

    def decode(self) -> Image.Image:
        """Decode the pixels, in the file's own mode; raises ImageError for damaged files."""
        try:
            self.image.load()
        except Exception as error:  # decoders raise anything
            raise _damaged(self.name, error) from error
        return self.image

    def render(self, size: tuple[int, int], background: str) -> Image.Image:
        """The picture upright at ``size``, 8-bit, in mode RGB or L, without metadata."""
        turn = None if self.format == "TIFF" else _TURN.get(self.orientation)  # Pillow turns TIFFs
        stored = size[::-1] if turn is not None and self.orientation >= 5 else size
        if self.data is not None and self.format in ("JPEG", "MPO"):
            width, height = self.image.size
            self.image.draft(None, (_draft(stored[0], width), _draft(stored[1], height)))
        icc = self.icc
        image = flatten(self.decode(), background, self.name)
        if image.size != stored:
            image = image.resize(stored, Image.Resampling.BICUBIC)
        image = to_srgb(image, icc)
        if turn is not None:
            image = image.transpose(turn)
        image = image.copy() if image is self.image else image
        image.info = {}
        return image


def _draft(wanted: int, stored: int) -> int:
    """The least the JPEG decoder may shrink a side to: it halves well, and quarters badly."""
    return min(2 * wanted, max(wanted, stored // 3))


def open_picture(
    source: ImageSource,
    *,
    max_pixels: int,
    fetch: Fetch | None,
    timeout: float,
    allow_private: bool,
) -> Picture:
    """Read a picture's header; raises ImageError for what is not a usable picture."""
    name = source_name(source)
    data = None
    if isinstance(source, Image.Image):
        image, kind = source, source.format or "PIL"
    elif isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, BinaryFile)):
        data = read_bytes(source, fetch=fetch, timeout=timeout, allow_private=allow_private)
        image = _open_file(data, name)
        kind = image.format or ""
    elif hasattr(source, "__array_interface__"):  # after texts: numpy's own have it too
        image, kind = from_array(source, name), "array"
    else:
        raise ImageError(
            "not a kind of picture that can be read",
            source=name,
            hint="give a path, URL, data URL, bytes, binary file, PIL image or numpy array",
        )
    _check_size(image, kind, name, max_pixels)
    orientation = _orientation(image, data)
    size = image.size[::-1] if orientation >= 5 and kind != "TIFF" else image.size
    frames = _count_frames(image, name) if data is not None else 1
    return Picture(name, image, data, kind, size, orientation, frames)


def _open_file(data: bytes, name: str) -> Image.Image:
    opener = _opener(data, name)
    try:
        return opener(BytesIO(data))
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything
        raise _damaged(name, error) from error


def _count_frames(image: Image.Image, name: str) -> int:
    if image.format == "MPO":  # the others are previews, depth or gain maps of the first
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # decoders raise anything
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    hint = "the file is damaged or cut off; save or download it again"
    if isinstance(error, Image.DecompressionBombError):
        hint = "shrink it; Pillow refuses to decode it"
    detail = str(error) or type(error).__name__
    return ImageError(f"cannot be decoded: {detail:.200}", source=name, hint=hint)


def _check_size(image: Image.Image, kind: str, name: str, max_pixels: int) -> None:
    width, height = image.size
    hint = "shrink it, or raise max_pixels"
    pillows = Image.MAX_IMAGE_PIXELS if kind == "TIFF" else None
    if pillows is not None and pillows < max_pixels:  # its own check cannot be passed by
        max_pixels, hint = pillows, "shrink it"
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width}x{height})", source=name)
    if width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} is more than {max_pixels:,} pixels", source=name, hint=hint
        )


def _opener(data: bytes, name: str) -> Opener:
    """Choose the decoder by the file's first bytes, never by its name."""
    for start, opener in _OPENERS:
        if data.startswith(start):
            return opener
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in range(8, min(64, int.from_bytes(data[:4], "big")), 4)}
        if brands & {b"avif", b"avis"}:
            return lambda file: _open_avif(file, name)
        if brands & _HEIF:
            return lambda file: _open_heif(file, name)
    raise _unknown(data, name)


_OPENERS: tuple[tuple[bytes, Opener], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.jpeg_factory),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"II+\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", TiffImagePlugin.TiffImageFile),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b"\xff\x4f\xff\x51", Jpeg2KImagePlugin.Jpeg2KImageFile),
    *((b"P%d" % kind, PpmImagePlugin.PpmImageFile) for kind in range(1, 7)),
)
_HEIF = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
"""What HEIF files call themselves (ISO/IEC 23008-12); an MP4 begins the same but for these."""


def _open_avif(file: BytesIO, name: str) -> Image.Image:
    try:
        from PIL import AvifImagePlugin

        supported = AvifImagePlugin.SUPPORTED
    except ImportError:
        supported = False
    if not supported:
        hint = "pip install --upgrade pillow (11.3 or newer reads AVIF)"
        raise ImageError("this Pillow cannot read AVIF", source=name, hint=hint)
    return AvifImagePlugin.AvifImageFile(file)


def _open_heif(file: BytesIO, name: str) -> Image.Image:
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        hint = "pip install 'internvl-modal[formats]', or convert it to JPEG"
        raise ImageError("HEIC needs the package pillow-heif", source=name, hint=hint) from error
    return cast(Image.Image, HeifImageFile(file))  # type: ignore[no-untyped-call]


def _unknown(data: bytes, name: str) -> ImageError:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        what, hint = "SVG is a drawing, not pixels", "render it to PNG first (resvg, CairoSVG)"
    elif start.startswith((b"<!doctype html", b"<html")):
        what, hint = "a web page, not a picture", "give the address of the picture itself"
    elif start.startswith(b"%pdf"):
        what, hint = "a PDF, not a picture", "render its pages to PNG first (pypdfium2)"
    else:
        what, hint = "not a picture in a known format", "convert it to JPEG or PNG"
        if data[4:8] == b"ftyp":
            hint += "; a video goes to describe_video"
    return ImageError(what, source=name, hint=hint)


def _orientation(image: Image.Image, data: bytes | None) -> int:
    """EXIF orientation 1-8; 1 where it is missing or makes no sense."""
    try:
        if data is not None and b"eXIf" not in data:  # else Pillow decodes a PNG to look behind it
            exif = Image.Image.getexif(image)
        else:
            exif = image.getexif()
        value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001, broken EXIF must not cost the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
