"""Which decoder reads a file, known by its first bytes, never by its name.

One decoder for each sort, named and not guessed: ``Image.open`` tries plug-in after plug-in, among
them some that run other programs (EPS) or read what no one sends. What is not in the table is not
decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import cast

from PIL import (
    BmpImagePlugin,
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
from internvl_modal.images.survey import Survey
from internvl_modal.images.survey.jpeg import survey_jpeg
from internvl_modal.images.survey.png import survey_png
from internvl_modal.images.survey.pnm import survey_pnm
from internvl_modal.images.survey.small import (
    survey_bmp,
    survey_boxes,
    survey_gif,
    survey_jpeg2000,
    survey_webp,
)
from internvl_modal.images.survey.tiff import survey_tiff


@dataclass(frozen=True)
class Format:
    """How files of one sort are looked at and opened."""

    survey: Callable[[bytes], Survey]
    open: Callable[[BytesIO, str], Image.Image]


def format_of(data: bytes, name: str) -> Format:
    """The format of a file; raises ImageError for what is none.

    A name may lie, and bytes from a URL have none.
    """
    for start, found in _BY_START:
        if data.startswith(start):
            return found
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _WEBP
    if data[4:8] == b"ftyp":
        # A file may name its main brand and compatible ones; the box's own length bounds the list.
        brands = {data[at : at + 4] for at in range(8, min(64, int.from_bytes(data[:4], "big")), 4)}
        if brands & {b"avif", b"avis"}:
            return Format(survey_boxes, _open_avif)
        if brands & _HEIF:
            return Format(survey_boxes, _open_heif)
    raise _unknown(data, name)


def _plugin(factory: Callable[[BytesIO], Image.Image]) -> Callable[[BytesIO, str], Image.Image]:
    return lambda file, _: factory(file)


_WEBP = Format(survey_webp, _plugin(WebPImagePlugin.WebPImageFile))
_JPEG = Format(survey_jpeg, _plugin(JpegImagePlugin.JpegImageFile))
_GIF = Format(survey_gif, _plugin(GifImagePlugin.GifImageFile))
_TIFF = Format(survey_tiff, _plugin(TiffImagePlugin.TiffImageFile))
_JPEG2000 = Format(survey_jpeg2000, _plugin(Jpeg2KImagePlugin.Jpeg2KImageFile))
_PNM = Format(survey_pnm, _plugin(PpmImagePlugin.PpmImageFile))
_BY_START = (
    (b"\xff\xd8\xff", _JPEG),
    (b"\x89PNG\r\n\x1a\n", Format(survey_png, _plugin(PngImagePlugin.PngImageFile))),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"BM", Format(survey_bmp, _plugin(BmpImagePlugin.BmpImageFile))),
    *((start, _TIFF) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _JPEG2000),
    (b"\xff\x4f\xff\x51", _JPEG2000),
    *((b"P%d" % kind, _PNM) for kind in range(1, 7)),
)
_HEIF = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
"""What HEIF files call themselves (ISO/IEC 23008-12); an MP4 begins the same but for these."""


def _open_avif(file: BytesIO, name: str) -> Image.Image:
    try:
        from PIL import AvifImagePlugin

        # A Pillow built without libavif has the module and cannot read a file.
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
    """The error for what is no picture, with what it seems to be instead: most are
    simple mistakes.
    """
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        what, hint = "SVG is a drawing, not pixels", "render it to PNG first (resvg, CairoSVG)"
    elif start.startswith((b"<!doctype html", b"<html")):
        what, hint = "a web page, not a picture", "give the address of the picture itself"
    elif start.startswith(b"%pdf"):
        what = "a PDF, not a picture"
        hint = "its pages are pictures: describe_many('file.pdf', pages='1-20')"
    elif data[257:262] == b"ustar" or data.startswith(b"PAR1"):
        what = "a file of many pictures, not one"
        hint = "give its name by itself to describe_many, or a glob of several"
    # ``path.encode()`` in place of ``path`` is a mistake that bytes cannot tell otherwise.
    elif b"\n" not in data and len(data) < 1024 and _is_path(data):
        what, hint = "bytes that hold a path", "give the path itself, as text"
    else:
        what, hint = "not a picture in a known format", "convert it to JPEG or PNG"
        if data[4:8] == b"ftyp":
            hint += "; a video goes to describe_video"
    return ImageError(what, source=name, hint=hint)


_ENDINGS = tuple(
    ending.encode()
    for ending in (
        *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif", ".jp2", ".ppm", ".pdf"),
    )
)


def _is_path(data: bytes) -> bool:
    return data.lower().endswith(_ENDINGS) or data.startswith((b"/", b"./", b"~/", b"http"))
