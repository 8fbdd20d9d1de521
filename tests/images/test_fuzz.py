"""Damaged files give a picture or an ImageError, and nothing else.

20,000 of them: INTERNVL_MODAL_TEST_FUZZ=2000 pytest tests/images/test_fuzz.py
"""

from __future__ import annotations

import os
import random
from io import BytesIO

import pytest
from PIL import Image

from internvl_modal.errors import ImageError
from internvl_modal.images import estimate, prepare
from tests.images.pictures import corners, encoded, swapped_profile

EACH = int(os.environ.get("INTERNVL_MODAL_TEST_FUZZ", "150"))
"""Files of each format."""
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM", "AVIF", "HEIF"]


def original(format: str) -> bytes:
    """A small file with much in it: turned, with a profile, several frames where it can."""
    picture = corners()
    if format == "HEIF":
        heif = pytest.importorskip("pillow_heif", reason="pip install 'internvl-modal[formats]'")
        out = BytesIO()
        heif.from_pillow(picture).save(out)
        return out.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"icc_profile": swapped_profile(), "exif": exif} if format != "PPM" else {}
    if format in ("GIF", "WEBP", "TIFF", "PNG"):
        more |= {"save_all": True, "append_images": [picture.convert("L").convert("RGB")]}
    return encoded(picture, format, **more)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to eight accidents, most of them near the header."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = int(len(result) * rng.random() ** 3)
        match rng.randrange(6):
            case 0:
                result[at : at + 1] = rng.randbytes(1)
            case 1:
                result[at : at + 4] = rng.choice([b"\0" * 4, b"\xff" * 4, b"\0\0\0\1", b"\x7f" * 4])
            case 2:
                del result[at : at + rng.randint(1, 40)]
            case 3:
                result[at:at] = rng.randbytes(rng.randint(1, 40))
            case 4:
                result[at:at] = result[at : at + rng.randint(1, 200)]
            case _:
                del result[len(result) - int(len(result) * rng.random() ** 4) :]
    return bytes(result)


@pytest.mark.parametrize("format", FORMATS)
def test_mutated_files_give_a_picture_or_our_error(format: str) -> None:
    rng = random.Random(format)
    data = original(format)
    prepare(data)
    read = 0
    for _ in range(EACH):
        damaged = mutated(data, rng)
        for use in (estimate, prepare):
            try:
                use(damaged, max_pixels=1_000_000)
            except ImageError:
                continue
            read += 1
    assert 0 < read < 2 * EACH


def test_random_bytes_after_every_known_start() -> None:
    rng = random.Random(7)
    for format in FORMATS:
        start = original(format)[:16]
        for _ in range(100):
            with pytest.raises(ImageError):
                prepare(start + rng.randbytes(rng.randint(0, 200)), max_pixels=1_000_000)
