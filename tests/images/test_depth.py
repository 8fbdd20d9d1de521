"""Deep grey is scaled, never clipped to black or white, in files and arrays alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_modal.images import PreparedImage, prepare
from tests.images.pictures import encoded, seen

GREY = np.tile(np.linspace(0, 1, 200, dtype="float32"), (100, 1))


def extremes(prepared: PreparedImage) -> Any:
    return seen(prepared.payload).convert("L").getextrema()


def given(values: Any, source: str) -> Any:
    """The same values as a TIFF file, a PNG file, a PIL image or an array."""
    if source == "array":
        return values
    picture = Image.fromarray(values)
    return picture if source == "PIL" else encoded(picture, source)


@pytest.mark.parametrize("source", ["TIFF", "PIL", "array"])
@pytest.mark.parametrize(
    ("values", "warned"),
    [
        (GREY, False),
        (GREY * 1.0001, True),
        (GREY * 255, True),
        (GREY * 10_000, True),
        (GREY - 0.5, True),
        ((GREY * 255).astype("int32"), True),
        ((GREY * 3_000_000 - 70_000).astype("int32"), True),
    ],
    ids=["0..1", "0..1.0001", "0..255", "0..10000", "-0.5..0.5", "int", "large int"],
)
def test_32_bits_reach_from_black_to_white(source: str, values: Any, warned: bool) -> None:
    prepared = prepare(given(values, source))
    assert extremes(prepared) == (0, 255)
    assert bool(prepared.warnings) == warned


@pytest.mark.parametrize("source", ["TIFF", "PNG", "PIL", "array"])
@pytest.mark.parametrize(
    ("top", "white", "warned"),
    [
        (65_535, 255, False),
        (32_767, 127, False),
        (4_096, 16, False),
        (4_095, 255, True),
        (4_000, 249, True),
        (1_023, 255, True),
        (600, 150, True),
        (255, 255, True),
    ],
)
def test_12_bits_in_16(source: str, top: int, white: int, warned: bool) -> None:
    prepared = prepare(given((GREY * top).astype("uint16"), source))
    low, high = extremes(prepared)
    assert low == 0
    assert abs(high - white) <= 1
    assert bool(prepared.warnings) == warned
    assert all("16-bit" in warning for warning in prepared.warnings)


@pytest.mark.parametrize("source", ["TIFF", "PIL", "array"])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16"])
@pytest.mark.parametrize("value", [600, 3_000])
def test_a_constant_picture_is_grey(source: str, dtype: str, value: int) -> None:
    low, high = extremes(prepare(given(np.full((20, 30), value, dtype), source)))
    assert low == high
    assert 100 < low < 200


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16", "int64"])
def test_a_picture_of_zeros_is_black(dtype: str) -> None:
    assert extremes(prepare(np.zeros((20, 30), dtype))) == (0, 0)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int64", "float16", "float64"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_kinds_of_numbers(dtype: str, channels: int) -> None:
    values = (np.dstack([GREY] * channels) * 120).astype(dtype)
    prepared = prepare(values)
    low, high = seen(prepared.payload).getextrema()[0]
    assert high - low >= 250 or channels == 4
    assert prepared.warnings


@pytest.mark.parametrize(("top", "warned"), [(4_095, True), (2_000, True), (5_000, False)])
def test_a_portable_map_of_16_bits_is_as_other_files(top: int, warned: bool) -> None:
    values = (GREY * top).astype(">u2")
    found = prepare(b"P5 200 100 65535\n" + values.tobytes())
    assert extremes(found) == extremes(prepare(values))
    assert bool(found.warnings) == warned


def test_a_portable_map_says_itself_what_is_white() -> None:
    for top in (100, 2_000):
        dark = prepare(b"P5 200 100 4095\n" + (GREY * top).astype(">u2").tobytes())
        assert extremes(dark)[1] <= round(255 * top / 4_095) + 1
        assert not dark.warnings
    values = (GREY * 2_000).astype(">u2").tobytes()
    assert extremes(prepare(b"P5 200 100 2000\n" + values)) == (0, 255)
