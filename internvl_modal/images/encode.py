"""Make the payload for one picture: as small as the grid allows, as true as the model can see.

What a client shrinks, it pays for once; what it sends too large, the server pays for on its one
preprocessing thread (355 ms of CPU for 12 megapixels against 46 ms) and the network carries. So a
picture is sent at the size of the grid that the server will choose, never larger, and never
enlarged. Measured figures are in docs/images.md.
"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImageChops
from typing_extensions import Unpack

from internvl_modal.images.fast import is_installed, shrink
from internvl_modal.images.load import Picture, open_picture, out_of_memory
from internvl_modal.images.names import source_name
from internvl_modal.images.pixels import checked_colour
from internvl_modal.images.render import (
    MAX_BYTES,
    check_memory,
    least_size,
    memory_needed,
    render,
    size_stored,
)
from internvl_modal.images.sources import Reading
from internvl_modal.images.tiles import Layout, Tiling, plan_layout, unshrunk
from internvl_modal.schema.inputs import ImageSource
from internvl_modal.schema.options import Detail
from internvl_modal.schema.results import Estimate, ImageInfo, PreparedImage

JPEG, PNG = "image/jpeg", "image/png"
QUALITY = 92
"""With full chroma: 39 dB and more in the model's tiles, which 4:2:0 misses on large pictures.

Of libjpeg's 1 to 100.
"""
FLAT = 0.5
"""Share of pixels equal to their neighbour from which a picture is a graphic.

Lossy coding smears the edges of text, and PNG packs flat areas better.
"""
SERVERS_PIXELS = 80_000_000
"""Most that a server is left to shrink: the Pillow there warns of more than 89 million."""
BYTES_PER_PIXEL = 0.4
"""Of the most detailed photographs at this quality."""
_JPEG_LONGEST = 65_500
"""Pixels a side: libjpeg's own limit is 65,500."""


def prepare(
    source: ImageSource,
    *,
    detail: Detail = "medium",
    tiling: Tiling = Tiling(),  # noqa: B008, it is frozen
    background: str = "white",
    formats: frozenset[str] = frozenset({JPEG, PNG}),
    shrink: bool = True,
    **reading: Unpack[Reading],
) -> PreparedImage:
    """Read, turn, flatten, shrink and encode one picture; raises ImageError.

    ``shrink=False`` leaves that to the server where it would see the same tiles of the file itself:
    such a picture is checked, and not decoded. ``formats`` are the media types the server reads.
    ``fetch`` gets the bytes of URLs, in ``timeout`` seconds; pictures of more than ``max_pixels``,
    and those that take more than ``max_bytes_decoded``, are refused. Raises OutOfResourcesError
    where this machine has no memory left.
    """
    try:
        picture = open_picture(source, reading)
        layout = plan_layout(*picture.size, detail, tiling)
        if not shrink:
            layout = _unshrunk(picture, layout, tiling, formats)
        most = reading.get("max_bytes_decoded", MAX_BYTES)
        sent = _encode(picture, layout.size, background, formats, most)
    except MemoryError as error:
        raise out_of_memory(source_name(source)) from error
    info = _info(picture, layout, sent)
    return PreparedImage(sent.payload, info, (*picture.warnings, *sent.warnings))


def estimate(
    source: ImageSource,
    *,
    detail: Detail = "medium",
    tiling: Tiling = Tiling(),  # noqa: B008, it is frozen
    formats: frozenset[str] = frozenset({JPEG, PNG}),
    **reading: Unpack[Reading],
) -> Estimate:
    """Tiles, tokens and expected payload of one picture, from its header alone."""
    try:
        picture = open_picture(source, reading)
    except MemoryError as error:
        raise out_of_memory(source_name(source)) from error
    layout = plan_layout(*picture.size, detail, tiling)
    return Estimate(
        source=picture.name,
        width=picture.size[0],
        height=picture.size[1],
        grid=layout.grid,
        tiles=layout.tiles,
        tokens=layout.tokens,
        payload_bytes=_expected_bytes(picture, layout, formats),
    )


def memory(
    source: ImageSource,
    *,
    detail: Detail = "medium",
    tiling: Tiling = Tiling(),  # noqa: B008, it is frozen
    formats: frozenset[str] = frozenset({JPEG, PNG}),
    **reading: Unpack[Reading],
) -> int:
    """Bytes that ``prepare`` takes beside the file, from its header alone; raises ImageError.

    For whoever prepares several at once within a budget.
    """
    picture = open_picture(source, reading)
    layout = plan_layout(*picture.size, detail, tiling)
    if _goes_as_it_is(picture, layout.size, formats):
        return 0
    return memory_needed(picture, layout.size)


class _Sent(NamedTuple):
    """What goes out: the encoded bytes and their media type."""

    payload: bytes
    media_type: str
    warnings: tuple[str, ...] = ()


def _info(picture: Picture, layout: Layout, sent: _Sent) -> ImageInfo:
    """What was done to the picture, in numbers, for ``Description.images``."""
    width, height = picture.stored_size
    return ImageInfo(
        source=picture.name,
        width=width,
        height=height,
        format=picture.format,
        orientation=picture.orientation,
        frames=picture.frames,
        sent_width=layout.size[0],
        sent_height=layout.size[1],
        sent_format=sent.media_type,
        bytes_sent=len(sent.payload),
        grid=layout.grid,
        tiles=layout.tiles,
        tokens=layout.tokens,
        max_tiles=layout.max_tiles,
    )


def _encode(
    picture: Picture, size: tuple[int, int], background: str, formats: frozenset[str], most: int
) -> _Sent:
    """Encode by the shortest way that loses nothing a model sees: the file itself, the fast way,
    Pillow.
    """
    checked_colour(background)
    picture.check_whole()
    if _goes_as_it_is(picture, size, formats):
        return _as_it_is(picture, size, most)
    if JPEG in formats and max(size) <= _JPEG_LONGEST and (payload := _fast(picture, size, most)):
        return _Sent(payload, JPEG)
    image, warnings = render(picture, size, background, most)
    out = BytesIO()
    # What was a JPEG has lost its edges already; grey, palettes and drawings go as PNG.
    lossy = picture.format in ("JPEG", "MPO") or not (
        image.mode == "L" or picture.image.mode in ("1", "P") or _is_flat(image)
    )
    if JPEG in formats and lossy and max(size) <= _JPEG_LONGEST:
        image.save(out, "JPEG", quality=QUALITY, subsampling=0)
        return _Sent(out.getvalue(), JPEG, warnings)
    # PNG has no YCbCr.
    (image.convert("RGB") if image.mode == "YCbCr" else image).save(out, "PNG")
    return _Sent(out.getvalue(), PNG, warnings)


def _fast(picture: Picture, size: tuple[int, int], most: int) -> bytes | None:
    """A colour JPEG made smaller by the packages of the extra ``fast``, where they are there."""
    photograph = picture.format in ("JPEG", "MPO") and picture.image.mode == "RGB"
    if picture.survey is None or not photograph or picture.icc is not None:
        return None
    stored = size_stored(picture, size)
    least = least_size(picture, stored)
    if stored == picture.image.size or not is_installed():
        return None
    check_memory(picture, least, stored, most)
    return shrink(picture.survey.data, least, stored, picture.orientation, QUALITY)


def _goes_as_it_is(picture: Picture, size: tuple[int, int], formats: frozenset[str]) -> bool:
    """Whether any server sees in the file itself what it would see in ours."""
    image = picture.image
    return (
        # LMDeploy ignores EXIF, takes the first frame, and puts black under what is transparent:
        # with any of these the server would see another picture than we do.
        picture.survey is not None
        and picture.format in ("JPEG", "PNG")
        and f"image/{picture.format.lower()}" in formats
        and size == picture.size
        and picture.orientation == 1
        and picture.frames == 1
        and image.mode in ("RGB", "L", "P")
        and not picture.deep_colour
        and not image.has_transparency_data
        and picture.icc is None
    )


def _unshrunk(picture: Picture, layout: Layout, tiling: Tiling, formats: frozenset[str]) -> Layout:
    """``layout`` at the picture's own size, where the file itself can go."""
    whole = unshrunk(*picture.size, layout, tiling)
    if whole is None or _area(whole.size) > SERVERS_PIXELS:
        return layout
    return whole if _goes_as_it_is(picture, whole.size, formats) else layout


def _as_it_is(picture: Picture, size: tuple[int, int], most: int) -> _Sent:
    """The file, without what follows the picture in it, such as a phone's film."""
    assert picture.survey is not None  # nosec B101  # see _goes_as_it_is: for the type checker
    if picture.survey.odd:
        check_memory(picture, size, size, most)
        picture.decode()  # its structure does not say that it is whole
    data = picture.survey.data[: picture.survey.end]
    return _Sent(data, f"image/{picture.format.lower()}")


def _is_flat(image: Image.Image) -> bool:
    """Whether most pixels equal their left neighbour: drawings, screens and text, not photos."""
    width, height = image.size
    # There is no left neighbour; a line is surely no photograph.
    if width == 1:
        return True
    flat = 0
    # Eight rows of every 64: enough to tell, at an eighth of the time.
    bands = [image.crop((0, y, width, min(y + 8, height))) for y in range(0, height, 64)]
    for band in bands:
        left = band.crop((0, 0, width - 1, band.height))
        right = band.crop((1, 0, width, band.height))
        change = ImageChops.difference(left, right).split()
        most = change[0]
        for channel in change[1:]:
            most = ImageChops.lighter(most, channel)
        flat += most.histogram()[0]
    return flat >= FLAT * (width - 1) * sum(band.height for band in bands)


def _expected_bytes(picture: Picture, layout: Layout, formats: frozenset[str]) -> int:
    """The file's own density says how much detail there is; shrinking packs it tighter."""
    if picture.survey is None:
        return int(_area(layout.size) * BYTES_PER_PIXEL)
    length = len(picture.survey.data[: picture.survey.end])
    if _goes_as_it_is(picture, layout.size, formats):
        return length
    shrink = _area(picture.size) / _area(layout.size)
    density = length / _area(picture.size) * shrink ** (1 / 3)
    return int(_area(layout.size) * min(density, BYTES_PER_PIXEL))


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
