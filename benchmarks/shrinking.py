"""Ways to bring a photograph's JPEG to its grid: CPU, bytes, fidelity, and what the server pays.

    pip install opencv-python-headless simplejpeg kornia-rs 'pyvips[binary]'
    python benchmarks/shrinking.py [FILE ...]

Each way decodes at half size, resizes, and encodes at quality 92 without halved colours. "Server"
is what InternVL's preprocessing then costs with Pillow: decoding, and resizing to the grid.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import kornia_rs
import numpy as np
import pyvips
import simplejpeg
from PIL import Image

from benchmarks.images import fidelity, jpeg, tiles
from benchmarks.photographs import photograph
from internvl_modal.images.tiles import choose_grid

ROUNDS = 5
Resampling = Image.Resampling


def grid_size(data: bytes) -> tuple[int, int]:
    """Pixels of the grid that the picture is shrunk to."""
    columns, rows = choose_grid(*Image.open(BytesIO(data)).size, 12)
    return 448 * columns, 448 * rows


def half(data: bytes, mode: str | None = None) -> Image.Image:
    """The picture as the decoder scales it: halved, not quartered."""
    image = Image.open(BytesIO(data))
    sides = zip(grid_size(data), image.size, strict=True)
    width, height = (min(2 * wanted, max(wanted, full // 3)) for wanted, full in sides)
    image.draft(mode, (width, height))
    image.load()
    return image


def pillow(way: Image.Resampling) -> Callable[[bytes], bytes]:
    """Pillow alone."""

    def shrink(data: bytes) -> bytes:
        return encoded(half(data).resize(grid_size(data), way))

    return shrink


def by_channel(data: bytes) -> bytes:
    """Pillow, in YCbCr: brightness by bicubic, colours by their nearest pixel."""
    size = grid_size(data)
    ways = (Resampling.BICUBIC, Resampling.NEAREST, Resampling.NEAREST)
    channels = zip(half(data, "YCbCr").split(), ways, strict=True)
    return encoded(Image.merge("YCbCr", [each.resize(size, way) for each, way in channels]))


def unresized(data: bytes) -> bytes:
    """As the decoder scaled it, for the server to resize."""
    return encoded(half(data))


def opencv(data: bytes) -> bytes:
    """Pillow decodes and encodes, OpenCV's cubic resizes."""
    pixels = cv2.resize(np.asarray(half(data)), grid_size(data), interpolation=cv2.INTER_CUBIC)
    return encoded(Image.fromarray(pixels))


def opencv_area(data: bytes) -> bytes:
    """Pillow decodes and encodes, OpenCV averages areas."""
    pixels = cv2.resize(np.asarray(half(data)), grid_size(data), interpolation=cv2.INTER_AREA)
    return encoded(Image.fromarray(pixels))


def turbo(data: bytes) -> bytes:
    """Simplejpeg decodes and encodes, OpenCV's cubic resizes."""
    width, height = grid_size(data)
    pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_width=width, min_height=height, min_factor=1, strict=True
    )
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return bytes(simplejpeg.encode_jpeg(pixels, 92, "RGB", "444"))


def kornia(data: bytes) -> bytes:
    """Pillow decodes and encodes, kornia-rs resizes."""
    width, height = grid_size(data)
    pixels = kornia_rs.imgproc.resize(np.asarray(half(data)), (height, width), "bicubic")
    return encoded(Image.fromarray(np.asarray(pixels)))


def vips(data: bytes) -> bytes:
    """Libvips alone."""
    width, height = grid_size(data)
    image = pyvips.Image.jpegload_buffer(data, shrink=2)
    image = image.resize(width / image.width, vscale=height / image.height, kernel="cubic")
    return bytes(image.jpegsave_buffer(Q=92, subsample_mode="off", keep="none"))


def encoded(image: Image.Image) -> bytes:
    """As the client encodes."""
    return jpeg(image, quality=92, subsampling=0)


def cpu(work: Callable[[], object]) -> float:
    """Least CPU time of several rounds, in milliseconds, of all threads together."""
    work()
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return 1000 * min(spent)


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "Pillow, bicubic": pillow(Resampling.BICUBIC),
    "Pillow, hamming": pillow(Resampling.HAMMING),
    "Pillow, box": pillow(Resampling.BOX),
    "Pillow, by channel": by_channel,
    "Pillow, not resized": unresized,
    "OpenCV, cubic": opencv,
    "OpenCV, area": opencv_area,
    "simplejpeg and OpenCV, cubic": turbo,
    "kornia-rs, bicubic": kornia,
    "libvips, cubic": vips,
}


def main() -> None:
    """Print the table."""
    given = {Path(name).name: Path(name).read_bytes() for name in sys.argv[1:]}
    made = {"12 MP": photograph(4000, 3000, 30), "24 MP": photograph(6000, 4000, 40)}
    print("| picture | way | CPU ms | KB | dB | server CPU ms |")
    print("|---|---|---|---|---|---|")
    for name, data in (given or made).items():
        reference = tiles(data)
        for way, shrink in WAYS.items():
            payload = shrink(data)
            size = grid_size(data)

            def serve(payload: bytes = payload, size: tuple[int, int] = size) -> object:
                return Image.open(BytesIO(payload)).convert("RGB").resize(size)

            row = [name, way, f"{cpu(lambda s=shrink, d=data: s(d)):.0f}"]
            row += [f"{len(payload) / 1000:.0f}", f"{fidelity(reference, tiles(payload)):.1f}"]
            print("| " + " | ".join([*row, f"{cpu(serve):.0f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
