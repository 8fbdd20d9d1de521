"""What is sent: little, and true to what the model would cut out of the original."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage.metrics import structural_similarity

from internvl_modal.errors import ImageError
from internvl_modal.images import estimate, prepare
from internvl_modal.images.fast import is_installed
from internvl_modal.images.tiles import Tiling, choose_grid
from internvl_modal.schema.options import Detail
from tests.images.pictures import (
    PHOTOGRAPHS,
    STORED,
    corners,
    encoded,
    large_photograph,
    near,
    photograph,
    quarters,
    seen,
    swapped_profile,
)


def tiles(picture: Image.Image, max_tiles: int) -> list[np.ndarray]:
    """The tiles that InternVL's own preprocessing cuts, thumbnail last."""
    columns, rows = choose_grid(*picture.size, max_tiles)
    sheet = picture.resize((448 * columns, 448 * rows))
    boxes = [(448 * i, 448 * j) for j in range(rows) for i in range(columns)]
    cut = [sheet.crop((x, y, x + 448, y + 448)) for x, y in boxes]
    return [np.asarray(tile) for tile in [*cut, picture.resize((448, 448))][: len(cut) + 1]]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(((a.astype(float) - b.astype(float)) ** 2).mean())
    return 10 * math.log10(255**2 / max(error, 0.01))


@pytest.fixture(scope="module")
def large() -> bytes:
    return large_photograph()


@pytest.fixture(params=["fast", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the packages of the extra ``fast`` and without."""
    is_installed.cache_clear()
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "cv2", None)
    assert is_installed() == (request.param == "fast"), "pip install 'internvl-modal[fast]'"
    yield request.param
    is_installed.cache_clear()


def test_tiles_of_the_payload_are_those_of_the_original(large: bytes, way: str) -> None:
    cases: list[tuple[bytes, Detail, int]] = [
        (encoded(photograph(name), "PNG"), 1, 1) for name in PHOTOGRAPHS if name != "chelsea"
    ]
    cases += [(large, "medium", 12), (large, "low", 6), (large, "high", 24)]
    quality, likeness = [], []
    for data, detail, limit in cases:
        prepared = prepare(data, detail=detail)
        assert prepared.info.sent_format == "image/jpeg"
        pairs = zip(tiles(seen(data), limit), tiles(seen(prepared.payload), limit), strict=True)
        for original, sent in pairs:
            quality.append(psnr(original, sent))
            likeness.append(structural_similarity(original, sent, channel_axis=2))
    assert np.mean(quality) >= 39
    assert np.mean(likeness) >= 0.97


def test_a_phones_photograph_keeps_what_the_model_sees(large: bytes, way: str) -> None:
    """Half of its colours are not in the file, so they are not resized as carefully."""
    picture = Image.open(BytesIO(large)).resize((2_000, 1_500)).resize((4_000, 3_000))
    data = encoded(picture, "JPEG", quality=90)
    prepared = prepare(data)
    pairs = list(zip(tiles(seen(data), 12), tiles(seen(prepared.payload), 12), strict=True))
    assert np.mean([psnr(*pair) for pair in pairs]) >= 39
    likeness = [structural_similarity(*pair, channel_axis=2) for pair in pairs]
    assert np.mean(likeness) >= 0.97


def test_a_large_photograph_is_shrunk_to_its_grid(large: bytes, way: str) -> None:
    prepared = prepare(large)
    assert (prepared.info.sent_width, prepared.info.sent_height) == (4 * 448, 3 * 448)
    assert prepared.info.bytes_sent == len(prepared.payload) < len(large) / 3
    assert b"Exif" not in prepared.payload


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_photograph_is_turned(orientation: int, way: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = corners(4_000, 3_000)
    turn = STORED[orientation]
    stored = upright.transpose(turn) if turn is not None else upright
    prepared = prepare(encoded(stored, "JPEG", exif=exif, quality=90))
    assert (prepared.info.sent_width, prepared.info.sent_height) == (1_792, 1_344)
    shown = quarters(seen(prepared.payload))
    assert near(shown, quarters(upright), 6)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_photographs_of_other_sorts_are_shrunk(mode: str, way: str) -> None:
    kept = {"keep_rgb": True} if mode == "RGB" else {}  # red, green and blue inside the file
    data = encoded(corners(4_000, 3_000).convert(mode), "JPEG", quality=95, **kept)
    wanted = quarters(Image.open(BytesIO(data)).convert("RGB"))
    assert near(quarters(seen(prepare(data).payload)), wanted, 8)


def test_a_damaged_photograph_is_told_alike(large: bytes, way: str) -> None:
    for cut in (1_000, len(large) // 2, len(large) - 1):
        with pytest.raises(ImageError, match="its end marker is missing"):
            prepare(large[:cut])


@pytest.mark.parametrize("detail", ["low", "medium", "high", "auto", 1, 40])
def test_estimate_agrees_with_prepare(large: bytes, detail: Detail) -> None:
    counted, info = estimate(large, detail=detail), prepare(large, detail=detail).info
    assert (counted.grid, counted.tiles, counted.tokens) == (info.grid, info.tiles, info.tokens)
    assert info.bytes_sent / 2 < counted.payload_bytes < info.bytes_sent * 2


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_small_files_go_as_they_are(format: str, mode: str) -> None:
    data = encoded(photograph("chelsea").convert(mode), format, quality=80)
    prepared = prepare(data)
    assert prepared.payload == data
    assert prepared.info.sent_format == f"image/{format.lower()}"
    assert estimate(data).payload_bytes == len(data)


def test_files_that_a_server_would_misread_do_not_go_as_they_are() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = photograph("chelsea")
    misread = [
        encoded(picture, "JPEG", exif=turned),
        encoded(picture.convert("CMYK"), "JPEG"),
        encoded(picture, "JPEG", icc_profile=swapped_profile()),
        encoded(picture.convert("RGBA"), "PNG"),
        encoded(picture, "PNG", save_all=True, append_images=[corners(451, 300)]),
        encoded(picture, "WEBP"),
        encoded(picture, "JPEG") + bytes(2_000_000),  # a phone's film behind the photograph
    ]
    for data in misread:
        prepared = prepare(data)
        assert prepared.payload != data
        assert Image.open(BytesIO(prepared.payload)).mode == "RGB"
        assert len(prepared.payload) < 500_000


def page(width: int, height: int) -> Image.Image:
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    for y in range(20, height - 20, 24):
        draw.text((20, y), "The quick brown fox jumps over the lazy dog. " * 4, fill="navy")
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        page(800, 600).convert("RGBA"),
        page(800, 600).convert("P"),
        corners(300, 200).convert("RGBA"),
    ],
    ids=["text", "palette", "drawing"],
)
def test_graphics_and_text_stay_lossless(picture: Image.Image) -> None:
    prepared = prepare(encoded(picture, "PNG" if picture.mode == "RGBA" else "GIF"))
    assert prepared.info.sent_format == "image/png"
    assert np.array_equal(np.asarray(seen(prepared.payload)), np.asarray(picture.convert("RGB")))


def test_a_large_page_is_shrunk_and_stays_sharp() -> None:
    picture = page(3000, 2000)
    prepared = prepare(encoded(picture, "PNG"))
    assert prepared.info.sent_format == "image/png"
    assert np.array_equal(
        np.asarray(seen(prepared.payload)), np.asarray(picture.resize((1344, 896)))
    )


def test_only_formats_that_the_server_reads_are_sent() -> None:
    data = encoded(photograph("coffee"), "JPEG")
    assert prepare(data, formats=frozenset({"image/png"})).info.sent_format == "image/png"


def test_a_picture_too_long_for_jpeg_still_goes() -> None:
    prepared = prepare(Image.effect_noise((70_000, 2), 90).convert("RGB"))
    assert prepared.info.sent_format == "image/png"


def test_the_tiling_of_the_server_counts() -> None:
    info = prepare(corners(640, 480), tiling=Tiling(tile_pixels=96, tokens_per_tile=9, max_tiles=1))
    assert (info.info.tiles, info.info.tokens) == (1, 9)
    assert (info.info.sent_width, info.info.sent_height) == (96, 96)


def test_the_picture_stays_out_of_the_repr() -> None:
    assert "payload" not in repr(prepare(corners()))
