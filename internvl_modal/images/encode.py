"""Make the payload for one picture: as small as the grid allows, as true as the model can see."""

from __future__ import annotations

from io import BytesIO
from typing import TypedDict

from PIL import Image, ImageChops
from typing_extensions import Unpack

from internvl_modal.images.load import Picture, open_picture
from internvl_modal.images.sources import Fetch
from internvl_modal.images.tiles import Layout, Tiling, plan_layout
from internvl_modal.schema.inputs import ImageSource
from internvl_modal.schema.options import Detail
from internvl_modal.schema.results import Estimate, ImageInfo, PreparedImage

JPEG, PNG = "image/jpeg", "image/png"
QUALITY = 92
"""With full chroma: 39 dB and more in the model's tiles, which 4:2:0 misses on large pictures."""
FLAT = 0.5
"""Share of pixels equal to their neighbour from which a picture is a graphic."""
BYTES_PER_PIXEL = 0.4
"""Of the most detailed photographs at this quality."""
_JPEG_LONGEST = 65_500


class Reading(TypedDict, total=False):
    """How a source is read; see ``prepare``."""

    fetch: Fetch | None
    timeout: float
    allow_private_urls: bool
    max_pixels: int


def prepare(
    source: ImageSource,
    *,
    detail: Detail = "medium",
    tiling: Tiling = Tiling(),  # noqa: B008, it is frozen
    background: str = "white",
    formats: frozenset[str] = frozenset({JPEG, PNG}),
    **reading: Unpack[Reading],
) -> PreparedImage:
    """Read, turn, flatten, shrink and encode one picture; raises ImageError.

    ``formats`` are the media types the server reads. ``fetch`` gets the bytes of URLs, in
    ``timeout`` seconds; pictures of more than ``max_pixels`` are refused.
    """
    picture = _open(source, reading)
    layout = plan_layout(*picture.size, detail, tiling)
    payload, media_type = _encode(picture, layout.size, background, formats)
    return PreparedImage(payload, _info(picture, layout, payload, media_type))


def estimate(
    source: ImageSource,
    *,
    detail: Detail = "medium",
    tiling: Tiling = Tiling(),  # noqa: B008, it is frozen
    formats: frozenset[str] = frozenset({JPEG, PNG}),
    **reading: Unpack[Reading],
) -> Estimate:
    """Tiles, tokens and expected payload of one picture, from its header alone."""
    picture = _open(source, reading)
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


def _open(source: ImageSource, reading: Reading) -> Picture:
    return open_picture(
        source,
        max_pixels=reading.get("max_pixels", 200_000_000),
        fetch=reading.get("fetch"),
        timeout=reading.get("timeout", 30.0),
        allow_private=reading.get("allow_private_urls", False),
    )


def _info(picture: Picture, layout: Layout, payload: bytes, media_type: str) -> ImageInfo:
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
        sent_format=media_type,
        bytes_sent=len(payload),
        grid=layout.grid,
        tiles=layout.tiles,
        tokens=layout.tokens,
        max_tiles=layout.max_tiles,
    )


def _encode(
    picture: Picture, size: tuple[int, int], background: str, formats: frozenset[str]
) -> tuple[bytes, str]:
    if picture.data is not None and _goes_as_it_is(picture, size, formats):
        picture.decode()  # a damaged file must not leave the house
        return picture.data, f"image/{picture.format.lower()}"
    image = picture.render(size, background)
    out = BytesIO()
    lossy = picture.format in ("JPEG", "MPO") or not (
        image.mode == "L" or picture.image.mode in ("1", "P") or _is_flat(image)
    )
    if JPEG in formats and lossy and max(size) <= _JPEG_LONGEST:
        image.save(out, "JPEG", quality=QUALITY, subsampling=0)
        return out.getvalue(), JPEG
    image.save(out, "PNG")
    return out.getvalue(), PNG


def _goes_as_it_is(picture: Picture, size: tuple[int, int], formats: frozenset[str]) -> bool:
    """Whether any server sees in the file itself what it would see in ours."""
    image = picture.image
    return (
        picture.format in ("JPEG", "PNG")
        and f"image/{picture.format.lower()}" in formats
        and size == picture.size
        and picture.orientation == 1
        and picture.frames == 1
        and image.mode in ("RGB", "L", "P")
        and not image.has_transparency_data
        and picture.icc is None
        and len(picture.data or b"") <= 4 * _area(size) + 65_536  # no video behind it
    )


def _is_flat(image: Image.Image) -> bool:
    """Whether most pixels equal their left neighbour: drawings, screens and text, not photos."""
    width, height = image.size
    if width == 1:
        return True
    flat = 0
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
    if picture.data is None:
        return int(_area(layout.size) * BYTES_PER_PIXEL)
    if _goes_as_it_is(picture, layout.size, formats):
        return len(picture.data)
    shrink = _area(picture.size) / _area(layout.size)
    density = len(picture.data) / _area(picture.size) * shrink ** (1 / 3)
    return int(_area(layout.size) * min(density, BYTES_PER_PIXEL))


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
