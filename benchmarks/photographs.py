"""Photographs as phones store them, put together from those that ship with scikit-image."""

from __future__ import annotations

import importlib.util
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.images import jpeg

Resampling = Image.Resampling


def photograph(width: int, height: int, grain: int) -> bytes:
    """Four photographs side by side with a camera's grain, as a phone would store them."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SystemExit("pip install scikit-image, or give files")
    folder = Path(found.origin).parent / "data"
    canvas = Image.new("RGB", (width, height))
    names = ["coffee.png", "astronaut.png", "motorcycle_left.png", "chelsea.png"]
    for index, name in enumerate(names):
        part = Image.open(folder / name).convert("RGB")
        part = part.resize((width // 2, height // 2), Resampling.BICUBIC)
        canvas.paste(part, (index % 2 * width // 2, index // 2 * height // 2))
    noise = Image.effect_noise((width, height), grain).convert("RGB")
    return jpeg(Image.blend(canvas, noise, 0.06), quality=90, subsampling=2)


def small(folder: Path, count: int) -> Path:
    """``count`` different JPEGs of 90 to 110 KB, 800x600, which go as they are."""
    folder.mkdir()
    large = Image.open(BytesIO(photograph(4000, 3000, 30)))
    places = np.random.default_rng(0)
    for index in range(count):
        x, y = (int(places.integers(0, side)) for side in (2400, 1800))
        part = large.crop((x, y, x + 1600, y + 1200)).resize((800, 600))
        encoded = (jpeg(part, quality=quality) for quality in range(60, 98, 3))
        data = next((each for each in encoded if len(each) > 90_000), jpeg(part, quality=97))
        (folder / f"{index:04}.jpg").write_bytes(data)
    return folder


def large(folder: Path, count: int) -> Path:
    """``count`` JPEGs of 12 megapixels, 1.2 to 1.6 MB."""
    folder.mkdir()
    picture = Image.open(BytesIO(photograph(4000, 3000, 20)))
    for index in range(count):
        data = jpeg(picture, quality=80 + 2 * (index % 4), subsampling=2)
        (folder / f"{index:04}.jpg").write_bytes(data)
    return folder


def noise() -> bytes:
    """235 KB of JPEG that go as they are."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    return jpeg(Image.fromarray(pixels), quality=62)
