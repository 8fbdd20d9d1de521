"""What preparing a picture costs and keeps: ours, plain Pillow, and the file as it is.

    python benchmarks/images.py [FILE ...]

Without files it measures photographs that ship with scikit-image, and 12 and 24 megapixels put
together from them. "dB" is the mean PSNR of the tiles InternVL would cut from what is sent,
against those it would cut from the original.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from internvl_modal.images import prepare
from internvl_modal.images.tiles import choose_grid

ROUNDS = 5


def as_it_is(data: bytes) -> bytes:
    """The file, untouched."""
    return data


def thumbnail(data: bytes) -> bytes:
    """What one writes without thinking of tiles: the longer side to 1792, quality 90."""
    picture = Image.open(BytesIO(data))
    picture.thumbnail((1792, 1792))
    return jpeg(picture.convert("RGB"), quality=90)


def ours(data: bytes) -> bytes:
    """What the client sends, with the extra ``fast`` where it is installed."""
    return prepare(data).payload


def jpeg(picture: Image.Image, **options: int) -> bytes:
    """Encode as JPEG."""
    out = BytesIO()
    picture.save(out, "JPEG", **options)
    return out.getvalue()


def tiles(data: bytes) -> list[np.ndarray]:
    """What InternVL cuts from an encoded picture, thumbnail last."""
    picture = Image.open(BytesIO(data)).convert("RGB")
    columns, rows = choose_grid(*picture.size, 12)
    sheet = np.asarray(picture.resize((448 * columns, 448 * rows)), dtype=float)
    cut = [tile for column in np.hsplit(sheet, columns) for tile in np.vsplit(column, rows)]
    return [*cut, np.asarray(picture.resize((448, 448)), dtype=float)]


def fidelity(original: list[np.ndarray], sent: list[np.ndarray]) -> float:
    """Mean PSNR in dB; infinite for the same pixels."""
    errors = [float(((a - b) ** 2).mean()) for a, b in zip(original, sent, strict=True)]
    return statistics.mean(
        10 * math.log10(255**2 / error) if error else math.inf for error in errors
    )


def measure(name: str, data: bytes) -> None:
    """Print a row for each method."""
    reference = tiles(data)
    size = "{}x{}".format(*Image.open(BytesIO(data)).size)
    methods: list[Callable[[bytes], bytes]] = [as_it_is, thumbnail, ours]
    for method in methods:
        seconds = []
        for _ in range(ROUNDS):
            began = time.process_time()
            payload = method(data)
            seconds.append(time.process_time() - began)
        quality = fidelity(reference, tiles(payload))
        spent = f"{1000 * statistics.median(seconds):.0f}"
        row = [name, size, method.__name__, spent, f"{len(payload) / 1000:,.0f}", f"{quality:.1f}"]
        print("| " + " | ".join(row) + " |")


def photographs() -> dict[str, bytes]:
    """Real photographs, and large ones made of them at twice their size."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SystemExit("pip install scikit-image, or give files")
    folder = Path(found.origin).parent / "data"
    names = ["astronaut.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png"]
    parts = [Image.open(folder / name).convert("RGB") for name in names]
    made = {
        "coffee, JPEG": jpeg(parts[1], quality=92),
        "retina": (folder / "retina.jpg").read_bytes(),
    }
    for name, width, height in (("12 MP", 4000, 3000), ("24 MP", 6000, 4000)):
        canvas = Image.new("RGB", (width, height))
        for index in range(width * height // 10**6):
            part = parts[index % len(parts)].resize((1000, 1000))
            canvas.paste(part, (index * 1000 % width, index * 1000 // width * 1000))
        made[name] = jpeg(canvas, quality=95, subsampling=0)
    return made


def main() -> None:
    """Print the table."""
    given = {Path(name).name: Path(name).read_bytes() for name in sys.argv[1:]}
    print("| picture | size | method | CPU ms | KB | dB |")
    print("|---|---|---|---|---|---|")
    for name, data in (given or photographs()).items():
        measure(name, data)


if __name__ == "__main__":
    main()
