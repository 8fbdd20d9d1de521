"""What the model would see of every kind of picture."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from internvl_modal.errors import ConfigError
from internvl_modal.images import estimate, prepare
from tests.images.pictures import (
    BLUE,
    GREEN,
    GREY,
    RED,
    corners,
    encoded,
    near,
    pixel,
    quarters,
    seen,
    stored,
    swapped_profile,
)

UPRIGHT = [RED, GREEN, BLUE, GREY]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_upright(format: str, orientation: int) -> None:
    data = stored(orientation, format)
    prepared = prepare(data)
    info = prepared.info
    picture = seen(prepared.payload)
    assert near(quarters(picture), UPRIGHT, 25)
    assert picture.size == (60, 40) == (info.sent_width, info.sent_height)
    assert info.orientation == orientation
    assert (info.width, info.height) == ((40, 60) if orientation >= 5 else (60, 40))
    assert (info.format, info.frames) == (format, 1)
    counted = estimate(data)
    assert (counted.width, counted.height, counted.grid) == (60, 40, info.grid)


@pytest.mark.parametrize("orientation", [5, 6])
def test_a_large_turned_jpeg_is_shrunk_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = Image.Transpose.TRANSPOSE if orientation == 5 else Image.Transpose.ROTATE_90
    data = encoded(corners(3000, 2000).transpose(turn), "JPEG", exif=exif)
    prepared = prepare(data)
    assert near(quarters(seen(prepared.payload)), UPRIGHT, 8)
    assert (prepared.info.sent_width, prepared.info.sent_height) == (1344, 896)
    assert (prepared.info.width, prepared.info.height) == (2000, 3000)


def test_orientation_written_behind_the_pixels_of_a_png_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(corners().transpose(Image.Transpose.ROTATE_180), "PNG")
    body = exif.tobytes()[6:]
    chunk = b"eXIf" + body
    block = len(body).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    assert near(quarters(seen(prepare(data[:-12] + block + data[-12:]).payload)), UPRIGHT)


@pytest.mark.parametrize(
    "sort",
    [
        "path", "str", "bytes", "bytearray", "memoryview", "file", "open", "data", "percent",
        "numpy.str_", "numpy.bytes_",
    ],
)  # fmt: skip
def test_every_source_gives_the_same_picture(sort: str, tmp_path: Path) -> None:
    data = encoded(corners(), "PNG")
    path = tmp_path / "p.txt"  # the name says nothing
    path.write_bytes(data)
    sources: dict[str, Any] = {
        "path": path,
        "str": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "file": io.BytesIO(data),
        "open": path.open("rb"),
        "data": "data:image/png;base64," + base64.b64encode(data).decode(),
        "percent": "data:image/png," + "".join(f"%{byte:02x}" for byte in data),
        "numpy.str_": np.array([str(path)])[0],
        "numpy.bytes_": np.array([data])[0],
    }
    with sources["open"]:
        assert prepare(sources[sort]).payload == data


TINY = encoded(Image.new("L", (1, 1), 7), "PNG")
B64 = base64.b64encode(TINY).decode()


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + B64.rstrip("="),
        "data:image/png;base64," + base64.urlsafe_b64encode(TINY).decode(),
        "data:image/png;base64," + B64[:20] + "\n " + B64[20:],
        "data:image/png;base64," + B64.replace("+", "%2B").replace("/", "%2F"),
        "data:image/png;name=a.png;base64," + B64,
        "data:image/png;base64;name=a.png," + B64,
        "data: image/png ; base64 ," + B64,
        "DATA:image/png;BASE64," + B64,
        "data:;base64," + B64,
        "data:image/png;base64," + B64 + "#fragment",
        " data:image/png;base64," + B64 + "\n",
    ],
)
def test_data_urls_as_browsers_take_them(url: str) -> None:
    assert prepare(url).payload == TINY


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La"])
@pytest.mark.parametrize(
    ("background", "colour"), [("white", (255,) * 3), ("#102030", (16, 32, 48))]
)
def test_transparency_shows_the_background(
    mode: str, background: str, colour: tuple[int, ...]
) -> None:
    picture = Image.new("RGBA", (40, 40), (0, 0, 0, 0))  # black lies under it
    picture.paste((200, 200, 200, 255), (20, 0, 40, 40))
    picture = picture.convert("LA" if mode == "La" else "RGBA").convert(mode)
    result = seen(prepare(picture, background=background).payload)
    assert near(pixel(result, 5, 20), colour, 3)
    assert near(pixel(result, 35, 20), (200,) * 3, 3)


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_shows_the_background(mode: str) -> None:
    picture = Image.new("L", (40, 40), 0)
    picture.paste(255, (20, 0, 40, 40))
    clear: Any = (0, 0, 0) if mode == "RGB" else 0
    data = encoded(picture.convert(mode), "PNG", transparency=clear)
    result = seen(prepare(data, background="red").payload)
    assert near(pixel(result, 5, 20), (255, 0, 0), 3)
    assert near(pixel(result, 35, 20), (255,) * 3, 3)


def ramp(mode: str, low: float, high: float) -> Image.Image:
    values = np.tile(np.linspace(low, high, 64), (16, 1))
    kinds = {"I;16": "uint16", "I;16B": ">u2", "I": "int32", "F": "float32"}
    return Image.fromarray(values.astype(kinds[mode]))


@pytest.mark.parametrize(
    ("mode", "low", "high", "format"),
    [
        ("I;16", 0, 65535, "PNG"),
        ("I;16", 0, 65535, "TIFF"),
        ("I;16B", 0, 65535, "TIFF"),
        ("I", -1000, 100_000, "TIFF"),
        ("F", 0.0, 1.0, "TIFF"),
        ("F", 0.0, 65535.0, "TIFF"),
        ("F", -3.0, 9.0, "TIFF"),
    ],
)
def test_deep_grey_is_scaled_not_clipped(mode: str, low: float, high: float, format: str) -> None:
    result = seen(prepare(encoded(ramp(mode, low, high), format)).payload)
    found = [pixel(result, x, 8)[0] for x in (0, 16, 32, 48, 63)]
    assert near(found, [0, 65, 130, 194, 255], 4)


def test_half_bright_16_bit_stays_half_bright() -> None:
    result = seen(prepare(encoded(ramp("I;16", 0, 32767), "PNG")).payload)
    assert near(pixel(result, 63, 8), (127,) * 3, 3)


@pytest.mark.parametrize("mode", ["1", "P", "L", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_modes_keep_their_look(mode: str) -> None:
    if mode == "LAB":
        srgb = ImageCms.createProfile("sRGB")
        lab = ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(corners(), srgb, lab, outputMode="LAB")
    else:
        picture = corners().convert(mode)
    assert picture is not None
    wanted = corners() if mode == "LAB" else picture.convert("RGB")
    assert near(quarters(seen(prepare(picture).payload)), quarters(wanted), 12)


def test_cmyk_and_ycck_jpegs_are_not_inverted() -> None:
    cmyk = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    red = seen(prepare(encoded(cmyk, "JPEG", quality=95)).payload)
    assert near(pixel(red, 32, 32), (254, 0, 0), 12)
    # The same scan, declared YCCK: Adobe's marker says how its four channels are meant.
    ycck = Image.merge(
        "CMYK", [*Image.new("YCbCr", (64, 64), (76, 85, 255)).split(), Image.new("L", (64, 64), 0)]
    )
    data = bytearray(encoded(ycck, "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    again = Image.open(io.BytesIO(bytes(data)))
    wanted = pixel(again.convert("RGB"), 32, 32)
    assert near(pixel(seen(prepare(bytes(data)).payload), 32, 32), wanted, 12)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_colour_profiles_are_converted_to_srgb(format: str) -> None:
    data = encoded(corners(), format, icc_profile=swapped_profile())
    prepared = prepare(data)
    assert near(pixel(seen(prepared.payload), 10, 10), (RED[2], RED[1], RED[0]), 40)
    assert b"ICC" not in prepared.payload
    assert b"iCCP" not in prepared.payload


def test_a_broken_or_unfit_profile_is_left_aside() -> None:
    for profile in (b"not a profile" * 20, swapped_profile()[:200]):
        data = encoded(corners(), "JPEG", icc_profile=profile)
        assert near(quarters(seen(prepare(data).payload)), UPRIGHT, 12)
    grey = encoded(corners().convert("L"), "JPEG", icc_profile=swapped_profile())
    assert near(
        quarters(seen(prepare(grey).payload)), quarters(corners().convert("L").convert("RGB"))
    )


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_used_and_they_are_counted(format: str) -> None:
    others = [Image.new("RGB", (60, 40), (0, 0, i)) for i in (90, 200)]
    prepared = prepare(encoded(corners(), format, save_all=True, append_images=others))
    assert prepared.info.frames == 3
    assert near(quarters(seen(prepared.payload)), UPRIGHT, 30)


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM", "AVIF"]
)
def test_formats_are_known_by_their_content(format: str) -> None:
    prepared = prepare(encoded(corners(), format))
    assert prepared.info.format == format
    assert prepared.info.sent_format in ("image/jpeg", "image/png")
    assert near(quarters(seen(prepared.payload)), UPRIGHT, 30)


def test_the_previews_in_a_phones_jpeg_are_no_frames() -> None:
    data = encoded(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (30, 20))])
    prepared = prepare(data)
    assert (prepared.info.format, prepared.info.frames) == ("MPO", 1)
    assert near(quarters(seen(prepared.payload)), UPRIGHT)


def test_heic_is_read_turned_as_its_container_says() -> None:
    heif = pytest.importorskip("pillow_heif", reason="pip install 'internvl-modal[formats]'")
    out = io.BytesIO()
    turned = corners().transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(turned).save(out, quality=95, exif=exif.tobytes())
    prepared = prepare(out.getvalue())
    assert prepared.info.format == "HEIF"
    assert near(quarters(seen(prepared.payload)), UPRIGHT, 25)


@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (lambda a: a, 1),
        (lambda a: a.astype("uint16") * 257, 1),
        (lambda a: (a / 255).astype("float32"), 1),
        (lambda a: a / 255, 1),
        (lambda a: np.dstack([a, np.full(a.shape[:2], 255, "uint8")]), 1),
        (lambda a: a[::-1][::-1], 1),
    ],
    ids=["uint8", "uint16", "float32", "float64", "rgba", "strided"],
)
def test_numpy_arrays(make: Any, scale: int) -> None:
    prepared = prepare(make(np.asarray(corners())))
    assert near(quarters(seen(prepared.payload)), UPRIGHT, 2)
    assert prepared.info.format == "array"


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
@pytest.mark.parametrize(
    ("dtype", "top"), [("uint8", 255), ("uint16", 65535), ("float32", 1), ("bool", 1)]
)
def test_grey_arrays(shape: tuple[int, ...], dtype: str, top: float) -> None:
    array = np.full(shape, top, dtype=dtype)
    array[:, :4] = 0
    result = seen(prepare(array).payload)
    assert near([pixel(result, 1, 4)[0], pixel(result, 6, 4)[0]], [0, 255], 2)


def test_a_pil_image_is_not_changed() -> None:
    picture = Image.open(io.BytesIO(encoded(corners(2000, 1000), "JPEG")))
    prepare(picture, detail="low")
    assert picture.size == (2000, 1000)
    info = prepare(corners().convert("P"))
    assert info.info.sent_width == 60


def test_a_wrong_background_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="background='no such colour'"):
        prepare(Image.new("RGBA", (4, 4)), background="no such colour")
