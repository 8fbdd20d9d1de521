"""Pictures that the server is left to shrink: the file itself, checked, and the same tiles."""

from __future__ import annotations

import base64
import re

import pytest

import internvl_modal as ivl
from internvl_modal.batch.outcome import fingerprint
from internvl_modal.errors import ImageError
from internvl_modal.images import prepare
from internvl_modal.images.tiles import Tiling
from internvl_modal.schema.options import DescribeOptions
from tests.images.pictures import corners, encoded, large_photograph, swapped_profile
from tests.loopback import Loopback


@pytest.fixture(scope="module")
def large() -> bytes:
    return large_photograph()


def test_the_file_itself_goes_and_has_the_tiles_of_a_shrunk_one(large: bytes) -> None:
    shrunk, whole = prepare(large), prepare(large, shrink=False)
    assert whole.payload == large
    assert (whole.info.sent_width, whole.info.sent_height) == (whole.info.width, whole.info.height)
    assert shrunk.info.sent_width < whole.info.sent_width
    names = ("grid", "tiles", "tokens", "max_tiles")
    assert all(getattr(shrunk.info, name) == getattr(whole.info, name) for name in names)


def turned(data: bytes) -> bytes:
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


def test_what_a_server_would_misread_is_shrunk_all_the_same(large: bytes) -> None:
    foreign = encoded(corners(3000, 2000), "JPEG", icc_profile=swapped_profile())
    clear = encoded(corners(3000, 2000).convert("RGBA"), "PNG")
    for data in (turned(large), foreign, clear, encoded(corners(3000, 2000), "WEBP")):
        info = prepare(data, shrink=False).info
        assert max(info.sent_width, info.sent_height) <= 1792


def test_a_cut_file_is_still_an_error(large: bytes) -> None:
    with pytest.raises(ImageError, match="end marker"):
        prepare(large[:-40_000], shrink=False)


@pytest.mark.parametrize(
    ("detail", "tiling"),
    [("low", Tiling(max_tiles=12)), ("medium", Tiling(max_tiles=12, rule="llama.cpp"))],
)
def test_a_picture_whose_tiles_would_change_is_shrunk(
    large: bytes, detail: ivl.Detail, tiling: Tiling
) -> None:
    shrunk = prepare(large, detail=detail, tiling=tiling)
    assert prepare(large, detail=detail, tiling=tiling, shrink=False) == shrunk


def test_a_call_shrinks_unless_it_is_told_not_to(loopback: Loopback, large: bytes) -> None:
    sizes = []
    with ivl.Client(base_url=loopback.url) as client:
        for options in ({}, {"shrink": "auto"}, {"shrink": "always"}, {"shrink": "never"}):
            client.describe(large, **options)  # type: ignore[arg-type]
            found = re.search(rb"base64,([A-Za-z0-9+/=]+)", loopback.heard[-1].body)
            assert found
            sizes.append(len(base64.b64decode(found[1])))
    assert sizes[0] == sizes[1] == sizes[2] != len(large)
    assert sizes[3] == len(large)


def test_who_shrinks_makes_no_other_run() -> None:
    runs = {
        fingerprint("p", DescribeOptions.parse({"shrink": shrink}), "m")
        for shrink in ("auto", "always", "never")
    }
    assert len(runs) == 1
