"""Pictures in every form in which they come, each with what a person would see in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

WIDTH, HEIGHT = 896, 448
TILE = 448
PATCH = 28


@dataclass(frozen=True)
class Case:
    """One file; ``truth`` is None where a person sees no picture in it."""

    name: str
    data: bytes
    truth: Image.Image | None


@cache
def scene() -> Image.Image:
    """Four quarters of different colours, so that no turn or mirroring looks the same."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), (230, 40, 40))
    picture.paste((40, 180, 60), (WIDTH // 2, 0, WIDTH, HEIGHT // 2))
    picture.paste((30, 60, 200), (0, HEIGHT // 2, WIDTH // 2, HEIGHT))
    picture.paste((240, 240, 200), (WIDTH // 2, HEIGHT // 2, WIDTH, HEIGHT))
    return picture


def ramp() -> NDArray[np.float64]:
    """0 to 1 from the left to the right."""
    return np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """The file's bytes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(format: str, orientation: int, **options: object) -> bytes:
    """The scene as a camera held that way stores it."""
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    stored = scene()
    if orientation > 1:
        stored.getexif()[274] = undo[orientation]
        stored = ImageOps.exif_transpose(stored)
        scene().getexif().clear()
    exif = Image.Exif()
    exif[274] = orientation
    if format == "TIFF":
        return encoded(stored, format, tiffinfo={274: orientation}, **options)
    return encoded(stored, format, exif=exif, **options)


def see_through(hidden: tuple[int, int, int] = (0, 0, 0)) -> tuple[Image.Image, Image.Image]:
    """The scene with a transparent stripe over ``hidden`` colours, and what is seen on white."""
    stripe = (0, HEIGHT // 4, WIDTH, HEIGHT * 3 // 4)
    image = scene().convert("RGBA")
    image.paste((*hidden, 0), stripe)
    truth = scene().copy()
    truth.paste((255, 255, 255), stripe)
    return image, truth


def red_and_green_swapped() -> bytes:
    """The scene with its first two channels exchanged, and a profile that says so."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for ours, theirs in ((b"rXYZ", b"gXYZ"), (b"rTRC", b"gTRC")):
        profile = profile.replace(ours, b"____", 1).replace(theirs, ours, 1)
        profile = profile.replace(b"____", theirs, 1)
    profile = profile.replace("sRGB".encode("utf-16-be"), "GRB ".encode("utf-16-be"))
    red, green, blue = scene().split()
    return encoded(Image.merge("RGB", (green, red, blue)), "PNG", icc_profile=profile)


def ycck() -> bytes:
    """The scene as a JPEG whose inks are stored as YCbCr and K, as Photoshop does."""
    inks = scene().point(lambda value: 255 - value)
    stored = [channel.point(lambda value: 255 - value) for channel in inks.convert("YCbCr").split()]
    black = Image.new("L", inks.size, 0)
    data = bytearray(encoded(Image.merge("CMYK", (*stored, black)), "JPEG", quality=95))
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0  # colour transform: none; 2 is YCCK
    data[adobe + 11] = 2
    return bytes(data)


def _grey(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")


def _upright() -> Iterator[tuple[str, bytes, Image.Image]]:
    for orientation in range(1, 9):
        data = turned("JPEG", orientation, quality=95)
        yield f"JPEG, EXIF orientation {orientation}", data, scene()
    for name in ("PNG", "WebP", "TIFF"):
        options = {"lossless": True} if name == "WebP" else {}
        yield f"{name}, EXIF orientation 6", turned(name.upper(), 6, **options), scene()


def _transparent() -> Iterator[tuple[str, bytes, Image.Image]]:
    image, truth = see_through()
    yield "PNG, transparent over black", encoded(image, "PNG"), truth
    bright, _ = see_through((255, 0, 255))
    yield (
        "WebP, transparent over magenta",
        encoded(bright, "WEBP", lossless=True, exact=True),
        truth,
    )
    yield "GIF, transparent", encoded(image, "GIF"), truth
    grey = image.convert("LA")
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(grey.convert("RGBA"))
    yield "PNG, grey and alpha", encoded(grey, "PNG"), flat.convert("RGB")
    palette = scene().quantize(16)
    yield "PNG, palette", encoded(palette, "PNG"), palette.convert("RGB")


def _deep() -> Iterator[tuple[str, bytes, Image.Image]]:
    deep = Image.fromarray((ramp() * 65535).astype(np.uint16))
    yield "PNG, 16-bit grey", encoded(deep, "PNG"), _grey(ramp())
    yield "TIFF, 16-bit grey", encoded(deep, "TIFF"), _grey(ramp())
    floats = Image.fromarray(ramp().astype(np.float32))
    yield "TIFF, float grey", encoded(floats, "TIFF"), _grey(ramp())
    half = Image.fromarray(ramp() > 0.5)
    yield "PNG, 1 bit", encoded(half, "PNG"), half.convert("RGB")
    yield "JPEG, grey", encoded(scene().convert("L"), "JPEG"), scene().convert("L").convert("RGB")


def _colour() -> Iterator[tuple[str, bytes, Image.Image]]:
    yield "JPEG, CMYK", encoded(scene().convert("CMYK"), "JPEG", quality=95), scene()
    yield "JPEG, YCCK", ycck(), scene()
    yield "PNG, ICC profile with red and green swapped", red_and_green_swapped(), scene()
    lab = ImageCms.profileToProfile(
        scene(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    yield "TIFF, CIELAB", encoded(lab, "TIFF"), scene()


def _several() -> Iterator[tuple[str, bytes, Image.Image]]:
    more = {"save_all": True, "append_images": [Image.new("RGB", (WIDTH, HEIGHT))]}
    for name, format, options in (
        ("GIF, animated", "GIF", {}),
        ("WebP, animated", "WEBP", {"lossless": True}),
        ("PNG, animated", "PNG", {}),
        ("TIFF, two pages", "TIFF", {}),
    ):
        yield name, encoded(scene(), format, **more, **options), scene()


def _formats() -> Iterator[tuple[str, bytes, Image.Image]]:
    import pillow_heif

    heic = io.BytesIO()
    pillow_heif.from_pillow(scene()).save(heic, quality=95)
    yield "HEIC", heic.getvalue(), scene()
    yield "AVIF", encoded(scene(), "AVIF", quality=95), scene()
    yield "WebP", encoded(scene(), "WEBP", quality=95), scene()
    yield "BMP", encoded(scene(), "BMP"), scene()
    yield "JPEG 2000", encoded(scene(), "JPEG2000"), scene()


def _sizes() -> Iterator[tuple[str, bytes, Image.Image]]:
    for size in ((4000, 3000), (3000, 400), (400, 3000), (100, 100), (640, 480)):
        picture = scene().resize(size)
        name = f"JPEG, {size[0]}x{size[1]}"
        yield name, encoded(picture, "JPEG", quality=95, progressive=True), picture


GROUPS: tuple[Callable[[], Iterator[tuple[str, bytes, Image.Image]]], ...]
GROUPS = (_upright, _transparent, _deep, _colour, _several, _formats, _sizes)


def pictures() -> list[Case]:
    """Files in which a person sees a picture."""
    return [Case(*made) for group in GROUPS for made in group()]


def no_pictures() -> list[Case]:
    """Files in which a person sees none, or not all of one."""
    jpeg = encoded(scene(), "JPEG", quality=95)
    png = encoded(scene(), "PNG")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    return [
        Case("JPEG, cut in half", jpeg[: len(jpeg) // 2], None),
        Case("PNG, cut in half", png[: len(png) // 2], None),
        Case("SVG", svg, None),
        Case("HTML page", b"<!doctype html><title>404</title>", None),
        Case("no bytes", b"", None),
    ]


def tiles_of(truth: Image.Image, grid: tuple[int, int]) -> NDArray[np.float64]:
    """(tiles, 16, 16, 3): mean colours of the patches that the official code cuts."""
    columns, rows = grid
    whole = truth.resize((columns * TILE, rows * TILE))
    cut = [
        whole.crop((x * TILE, y * TILE, (x + 1) * TILE, (y + 1) * TILE))
        for y in range(rows)
        for x in range(columns)
    ]
    if len(cut) > 1:
        cut.append(truth.resize((TILE, TILE)))
    return np.stack([patches(tile) for tile in cut])


def patches(tile: Image.Image) -> NDArray[np.float64]:
    """(16, 16, 3) mean colours of a tile."""
    pixels = np.asarray(tile, np.float64).reshape(16, PATCH, 16, PATCH, 3)
    means: NDArray[np.float64] = pixels.mean((1, 3))
    return means
