"""Pictures for the tests: drawn, encoded in any format, and real photographs."""

from __future__ import annotations

import importlib.util
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 180, 40), (30, 60, 220), (128, 128, 128)
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "motorcycle_left", "motorcycle_right", "retina")
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera that writes this EXIF orientation stores an upright picture."""


def corners(width: int = 60, height: int = 40) -> Image.Image:
    """Red, green / blue, grey quarters: every way to turn it looks different."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(GREY, (width // 2, height // 2, width, height))
    return picture


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def stored(orientation: int, format: str) -> bytes:
    """``corners()`` as a camera held this way writes it."""
    picture = corners()
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture.transpose(turn) if turn is not None else picture, format, exif=exif)


def seen(payload: bytes) -> Image.Image:
    """A payload as a server decodes it: no EXIF, no profile, ``convert`` to RGB."""
    return Image.open(BytesIO(payload)).convert("RGB")


def quarters(picture: Image.Image) -> list[tuple[int, ...]]:
    width, height = picture.size
    spots = [(1, 1), (3, 1), (1, 3), (3, 3)]
    return [pixel(picture, width * x // 4, height * y // 4) for x, y in spots]


def pixel(picture: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = picture.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def near(found: Any, wanted: Any, tolerance: int = 12) -> bool:
    """Whether two colours, or lists of colours, are the same but for encoding loss."""
    if isinstance(found, (int, float)):
        return abs(found - wanted) <= tolerance
    return all(near(a, b, tolerance) for a, b in zip(found, wanted, strict=True))


def swapped_profile() -> bytes:
    """An RGB profile whose red is sRGB's blue: what ignores it shows the wrong colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return (
        bytes(profile).replace(b"s\0R\0G\0B", b"t\0e\0s\0t").replace(b"sRGB built", b"test built")
    )


def photograph(name: str) -> Image.Image:
    """A real photograph; they ship with scikit-image."""
    found = importlib.util.find_spec("skimage")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "data"
    path = next(folder.glob(f"{name}.*"))
    return Image.open(path).convert("RGB")


def large_photograph() -> bytes:
    """12 megapixels as a camera's JPEG: photographs side by side, each at twice its size."""
    canvas = Image.new("RGB", (4000, 3000))
    for index in range(12):
        part = photograph(PHOTOGRAPHS[index % 5]).resize((1000, 1000), Image.Resampling.BICUBIC)
        canvas.paste(part, (index % 4 * 1000, index // 4 * 1000))
    return encoded(canvas, "JPEG", quality=95, subsampling=0)
