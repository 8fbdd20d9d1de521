"""A file that is cut anywhere is an ImageError, and one that goes as it is needs no decoding."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from internvl_modal.errors import ImageError
from internvl_modal.images import prepare
from internvl_modal.images.survey.jpeg import survey_jpeg
from tests.images.bombs import chunk
from tests.images.pictures import corners, encoded

FILES, PLACES = 200, 50
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF", "HEIF"]


def picture(rng: random.Random) -> Image.Image:
    size = rng.randint(8, 60), rng.randint(8, 60)
    mode = rng.choice(["RGB", "L"])
    return Image.frombytes(mode, size, rng.randbytes(size[0] * size[1] * len(mode)))


def written(format: str, rng: random.Random) -> bytes:
    """A file as some program might write it: progressive, animated, packed, with comments."""
    drawn, options = picture(rng), {}
    if format == "JPEG":
        options = {"progressive": rng.random() < 0.5, "quality": rng.randint(20, 98)}
        options |= {"comment": b"\xff\xd9 is no end here"} if rng.random() < 0.5 else {}
    elif format in ("GIF", "WEBP", "PNG", "TIFF") and rng.random() < 0.5:
        options = {"save_all": True, "append_images": [picture(rng).resize(drawn.size)]}
    elif format == "HEIF":
        heif = pytest.importorskip("pillow_heif", reason="pip install 'internvl-modal[formats]'")
        out = io.BytesIO()
        heif.from_pillow(drawn).save(out)
        return out.getvalue()
    return encoded(drawn, format, **options)


@pytest.mark.parametrize("format", FORMATS)
def test_a_cut_file_is_told(format: str) -> None:
    rng = random.Random(format)
    files = FILES if format in FORMATS[:5] else 40
    for _ in range(files):
        data = written(format, rng)
        prepare(data)
        length = len(data) - (16 if format == "TIFF" else 0)  # Pillow fills up to 16 bytes
        for _ in range(PLACES):
            with pytest.raises(ImageError) as caught:
                prepare(data[: rng.randrange(1, length)])
            assert caught.value.source.startswith("bytes (")


def test_what_a_checksum_finds() -> None:
    data = encoded(picture(random.Random(5)), "PNG")
    assert prepare(data).payload == data
    for at in range(30, len(data) - 12, 7):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(ImageError):
            prepare(bytes(changed))


PHOTO = encoded(Image.effect_noise((300, 200), 60).convert("RGB"), "JPEG", quality=80)


@pytest.mark.parametrize("tail", [b"", b"\0" * 4_096, b"\xff\xff", b"\r\n", PHOTO[:9_000]], ids=len)
def test_what_follows_a_picture_shortly_is_left(tail: bytes) -> None:
    assert prepare(PHOTO + tail).payload == PHOTO + tail


@pytest.mark.parametrize("tail", [bytes(70_000), PHOTO * 20, b"film" * 100_000])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_what_follows_a_picture_at_length_is_cut_off(format: str, tail: bytes) -> None:
    data = PHOTO if format == "JPEG" else encoded(corners(), "PNG")
    assert prepare(data + tail).payload == data


def test_an_unknown_tail_is_odd_and_decoded() -> None:
    """An end marker can be an accident; then the rest of the picture follows it."""
    middle = len(PHOTO) // 2
    assert survey_jpeg(PHOTO[:middle] + b"\xff\xd9" + PHOTO[middle:]).odd
    assert not survey_jpeg(PHOTO + PHOTO).odd
    assert not survey_jpeg(PHOTO + bytes(100)).odd
    broken = PHOTO[:middle] + b"\xff\xd9" + b"\xff\x02" + PHOTO[middle:-2]
    assert survey_jpeg(broken).odd


def test_the_previews_of_phones_are_not_taken_for_its_end() -> None:
    thumbnail = encoded(Image.new("RGB", (16, 12), "red"), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Thumb\0" + thumbnail
    data = PHOTO[:2] + segment + PHOTO[2:]
    assert prepare(data).payload == data
    with pytest.raises(ImageError, match="its end marker is missing"):
        prepare(data[: len(segment) + 5_000])


def png_with(*chunks: bytes) -> bytes:
    data = encoded(corners(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def test_long_texts_and_profiles_in_a_png_are_taken_out() -> None:
    """Pillow, in the server too, refuses texts of more than a megabyte."""
    workflow = chunk(b"tEXt", b"workflow\0" + b"{}" * 2_000_000)
    prompt = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"x" * 3_000_000))
    plain = encoded(corners(), "PNG")
    prepared = prepare(png_with(workflow, prompt))
    assert prepared.payload == plain
    short = png_with(chunk(b"tEXt", b"Software\0test"))
    assert prepare(short).payload == short


def test_a_large_profile_in_a_png_is_used() -> None:
    from tests.images.pictures import RED, near, pixel, seen, swapped_profile

    profile = swapped_profile() + random.Random(1).randbytes(2_000_000)
    data = png_with(chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)))
    shown = seen(prepare(data).payload)
    assert near(pixel(shown, 10, 10), (RED[2], RED[1], RED[0]), 40)


@pytest.mark.parametrize(
    ("header", "body", "value"),
    [
        (b"P6 4 2 254\n", bytes([0, 127, 254] * 8), (0, 128, 255)),
        (b"P6 4 2 65535\n", b"\0\0\x80\0\xff\xff" * 8, (0, 128, 255)),
        (b"P6 # a comment\n 4 # and another\n2\n15\n", bytes([0, 8, 15] * 8), (0, 136, 255)),
        (b"P3 4 2 15\n", b"0 8 15 " * 8, (0, 136, 255)),
        (b"P3 4 2 15\n# comment\n", b"0 8 15 " * 8, (0, 136, 255)),
    ],
)
def test_portable_maps_of_any_depth(header: bytes, body: bytes, value: tuple[int, ...]) -> None:
    shown = np.asarray(Image.open(io.BytesIO(prepare(header + body).payload)).convert("RGB"))
    assert np.abs(shown.astype(int) - value).max() <= 1


def test_a_short_portable_bitmap() -> None:
    shown = Image.open(io.BytesIO(prepare(b"P1\n4 2\n1 0 1 0\n0 1 0 1\n").payload)).convert("L")
    assert list(shown.tobytes()) == [0, 255, 0, 255, 255, 0, 255, 0]
