"""What cannot be used says so, with its name and what to do."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from internvl_modal.errors import ImageError
from internvl_modal.images import estimate, prepare
from internvl_modal.images.names import source_name
from tests.images.pictures import corners, encoded

NOISE = Image.effect_noise((300, 200), 80).convert("RGB")
HEIC_START = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def refused(source: Any, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        prepare(source, **options)
    assert str(caught.value).startswith(caught.value.source)
    return caught.value


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM", "AVIF"]
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files(format: str, share: float, tmp_path: Path) -> None:
    data = encoded(NOISE, format)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * share)])
    error = refused(path)
    assert error.source == str(path)
    assert "damaged or cut off" in error.hint


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_more_pixels_than_allowed(format: str) -> None:
    data = encoded(Image.new("RGB", (300, 200)), format)
    error = refused(data, max_pixels=59_999)
    assert "300x200 is more than 59,999 pixels" in str(error)
    assert "max_pixels" in error.hint
    prepare(data, max_pixels=60_000)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    data = bytearray(encoded(Image.new("1", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_a_decompression_bomb_is_refused_before_decoding() -> None:
    assert "100000x100000 is more than 200,000,000 pixels" in str(refused(bomb(100_000, 100_000)))
    with pytest.raises(ImageError, match="more than"):
        estimate(bomb(100_000, 100_000))


@pytest.mark.parametrize("over", [1.5, 3.0])
def test_pillows_own_limit_shows_only_as_our_error(
    over: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(300 * 200 / over))
    refused(encoded(NOISE, "TIFF"))
    for format in ("JPEG", "PNG", "BMP"):
        prepare(encoded(NOISE, format))


def test_a_gif_whose_frame_bursts_its_screen() -> None:
    data = bytearray(encoded(Image.new("L", (1, 1)), "GIF"))
    frame = data.index(b",\0\0\0\0\1\0\1\0")
    data[frame + 5 : frame + 9] = b"\xff" * 4
    assert "Pillow refuses" in refused(bytes(data)).hint


def test_a_picture_without_pixels() -> None:
    assert "no pixels" in str(refused(np.zeros((0, 5, 3), "uint8")))
    assert "no pixels (0x7)" in str(refused(Image.new("RGB", (0, 7))))
    refused(bomb(0, 5))


@pytest.mark.parametrize(
    ("data", "what", "hint"),
    [
        (b"hello, this is text", "not a picture", "convert it"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG", "render it to PNG"),
        (b"\xef\xbb\xbf  <SVG/>", "SVG", "render it to PNG"),
        (b"<!DOCTYPE html><html>", "web page", "address of the picture"),
        (b"%PDF-1.7", "PDF", "pages='1-20'"),
        (b"photos/harbour.jpg", "hold a path", "as text"),
        (b"/srv/photos/harbour", "hold a path", "as text"),
        (b"", "empty", ""),
        (b"\xff\xd8\xff", "cannot be decoded", "damaged"),
    ],
)
def test_what_is_not_a_picture(data: bytes, what: str, hint: str) -> None:
    error = refused(data)
    assert what in str(error)
    assert hint in error.hint
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in str(refused(tmp_path / "missing.jpg"))
    assert "a directory" in str(refused(str(tmp_path)))
    assert "describe_many" in refused(tmp_path).hint
    assert "~ is not expanded" in refused("~/missing.jpg").hint
    assert "cannot be read" in str(refused("with\0null"))
    assert "cannot be read" in str(refused("x" * 5000))
    assert "data:image/jpeg;base64" in refused("QUJD" * 100).hint
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in str(refused(tmp_path / "pipe"))


def test_a_file_that_becomes_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(b"anything")
    opened = os.open

    def swapped(name: str, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return opened(name, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(ImageError, match="empty"):
        prepare(path)


def test_a_file_of_another_size_than_the_system_says_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it grows meanwhile, or as the system hands it out in parts."""
    path = tmp_path / "red.png"
    Image.effect_noise((300, 300), 50).save(path)
    whole = path.read_bytes()
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, size: read(file, min(size, 1000)))
    assert prepare(path).payload == whole


@pytest.mark.parametrize("url", ["ftp://host/p.jpg", "s3://bucket/p.jpg", "file:///p.jpg"])
def test_other_schemes(url: str) -> None:
    assert f"{url[: url.index(':')]} URLs are not supported" in str(refused(url))


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("data:image/png", "comma is missing"),
        ("data:image/png;base64,@@@@", "base64 of the data URL is broken"),
        ("data:image/png;base64,QUJDRA=", "base64 of the data URL is broken"),
        ("data:image/png;base64,", "empty"),
        ("data:,", "empty"),
    ],
)
def test_broken_data_urls(url: str, what: str) -> None:
    assert what in str(refused(url))


class Closed(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("the disk is gone")


class Awaited(io.BytesIO):
    async def read(self, size: int | None = -1, /) -> bytes:  # type: ignore[override]
        return b""


def at_its_end() -> io.BytesIO:
    file = io.BytesIO(encoded(corners(), "PNG"))
    file.read()
    return file


@pytest.mark.parametrize(
    ("source", "what", "hint"),
    [
        (at_its_end(), "empty", "call seek(0)"),
        (io.BytesIO(), "empty", ""),
        (Awaited(), "must be awaited", "await file.read()"),
        (b"/srv/photos/harbour.jpg", "bytes that hold a path", "as text"),
        (bytearray(b"harbour.png"), "bytes that hold a path", "as text"),
    ],
)
def test_near_misses_say_what_to_do(source: object, what: str, hint: str) -> None:
    error = refused(source)
    assert what in error.message
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (io.StringIO("text"), "read() did not return bytes"),
        (Closed(), "the disk is gone"),
        (io.BytesIO(), "empty"),
        (None, "object of type NoneType"),
        (42, "object of type int"),
        (["a.jpg"], "object of type list"),
        ({"url": "x"}, "object of type dict"),
    ],
)
def test_other_objects(source: object, what: str) -> None:
    assert what in str(refused(source))


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((3, 10, 10), "uint8"), "channels-first"),
        (np.zeros((10, 10, 2), "uint8"), "not the shape"),
        (np.zeros((10,), "uint8"), "not the shape"),
        (np.zeros((1, 10, 10, 3), "uint8"), "not the shape"),
        (np.zeros((10, 10), "complex64"), "dtype complex64"),
        (np.full((10, 10), np.nan, "float32"), "not numbers"),
        (np.full((10, 10), np.inf), "not numbers"),
    ],
)
def test_arrays_that_are_no_pictures(array: Any, what: str) -> None:
    assert what in str(refused(array))


def test_float_files_with_pixels_that_are_no_numbers() -> None:
    data = encoded(Image.fromarray(np.full((4, 4), np.nan, "float32")), "TIFF")
    assert "not numbers" in str(refused(data))


def test_heic_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    error = refused(HEIC_START)
    assert "pip install 'internvl-modal[formats]'" in error.hint
    assert error.source == "bytes (24 bytes)"


@pytest.mark.parametrize("format", ["mp4", "mov"])
def test_a_video_is_no_heic(format: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])
    error = refused(file.getvalue())
    assert "not a picture in a known format" in error.message
    assert "describe_video" in error.hint


def test_a_file_of_many_pictures_is_told_where_it_goes() -> None:
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    for data in (shard.getvalue(), b"PAR1" + bytes(40) + b"PAR1"):
        error = refused(data)
        assert "a file of many pictures" in error.message
        assert "by itself to describe_many" in error.hint


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_a_brand_is_four_aligned_letters(brand: bytes) -> None:
    def box(brands: bytes) -> bytes:
        return (16 + len(brands)).to_bytes(4, "big") + b"ftypisom\0\0\0\0" + brands + bytes(20)

    assert "known format" in refused(box(b"ab" + brand + b"cd")).message
    assert "known format" not in refused(box(b"iso2" + brand)).message


def test_avif_without_pillows_support_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import AvifImagePlugin

    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    assert "pip install --upgrade pillow" in refused(HEIC_START.replace(b"heic", b"avif")).hint


def test_estimate_decodes_no_pixels_and_prepare_does() -> None:
    data = bytearray(encoded(NOISE, "PNG"))
    start = data.index(b"IDAT") + 8
    data[start : start + 4000] = bytes(4000)
    assert estimate(bytes(data)).tiles == 7
    refused(bytes(data))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://me:key@host:8443/a/b.jpg?token=key#key", "https://host:8443/a/b.jpg"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("ftp://me:key@host/a.jpg", "ftp://host/a.jpg"),
        ("file:///a/b.jpg", "file:///a/b.jpg"),
        ("http://host:notaport/key", "URL that cannot be read"),
        ("data:image/png;base64," + "A" * 12_000, "data URL (image/png, 12 KB)"),
        (b"12345", "bytes (5 bytes)"),
        (bytes(3_000_000), "bytes (3 MB)"),
        (Path("pictures/cat.jpg"), "pictures/cat.jpg"),
        ("a\nb\x1b.jpg", "a?b?.jpg"),
        (corners(), "PIL image 60x40"),
        (np.zeros((4, 5, 3)), "array (4, 5, 3)"),
        (io.BytesIO(b"1"), "file"),
    ],
)
def test_names_are_short_and_hold_no_secret(source: Any, name: str) -> None:
    assert source_name(source) == name


def test_names_of_long_paths_and_open_files(tmp_path: Path) -> None:
    assert len(source_name("x" * 10**6)) < 110
    with (tmp_path / "x.jpg").open("wb+") as file:
        assert source_name(file) == f"file {tmp_path / 'x.jpg'}"


@pytest.mark.parametrize(
    ("given", "kept"), [(None, 2), ("0", 0), ("5", 5)], ids=["nothing said", "none", "more"]
)
def test_pillow_keeps_a_little_memory_unless_somebody_says_how_much(
    given: str | None, kept: int
) -> None:
    code = (
        "from PIL import Image\n"
        "from internvl_modal.images import prepare\n"
        "prepare(Image.new('RGB', (2000, 2000)))\n"
        "print(Image.core.get_blocks_max())"
    )
    env = {name: value for name, value in os.environ.items() if name != "PILLOW_BLOCKS_MAX"}
    env |= {} if given is None else {"PILLOW_BLOCKS_MAX": given}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == kept
