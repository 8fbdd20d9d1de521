"""Small files that would keep a decoder busy, or take gigabytes: built here, byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

SIDE = 14_100
"""198 megapixels, just below the limit of 200."""


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(
    width: int, height: int, depth: int, colours: int, *extra: bytes, filled: bool = False
) -> bytes:
    """A PNG of zeros; ``filled``: with all of its pixels, else with a few of them."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    row = bytes(1 + (width * samples * depth + 7) // 8)
    squeeze = zlib.compressobj(1)
    rows = [squeeze.compress(row) for _ in range(height if filled else 1)]
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    pixels = b"".join(rows) + squeeze.flush()
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(format: str, mode: str, width: int, height: int, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, format, **options)
    return out.getvalue()


def scans(count: int, side: int = 2000) -> bytes:
    data = encoded("JPEG", "L", side, side, progressive=True, quality=50)
    start, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[start:end] * count + b"\xff\xd9"


def into_jpeg(segment: bytes) -> bytes:
    data = encoded("JPEG", "RGB", 8, 8)
    return data[:2] + segment + data[2:]


def tags(count: int, values: int, size: int) -> bytes:
    """A TIFF directory whose every tag claims ``values`` bytes."""
    entries = b"".join(struct.pack("<HHII", 40000 + i % 20000, 7, values, 8) for i in range(count))
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries
    return body + bytes(max(4, size - len(body)))


GIF = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
FRAME = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"


def tiff_pages(count: int) -> bytes:
    sizes = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    entries = [struct.pack("<HHII", tag, 3, 1, value) for tag, value in [*sizes, (279, 1)]]
    body = struct.pack("<H", len(entries)) + b"".join(entries)
    at = [16 + i * (len(body) + 4) for i in range(count)]
    pages = [body + struct.pack("<I", following) for following in [*at[1:], 0]]
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + b"".join(pages)


def webp_chunks(count: int) -> bytes:
    body = encoded("WEBP", "RGB", 8, 8)[12:] + b"ABCD\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def text(count: int, kind: bytes = b"zTXt") -> bytes:
    packed = b"k\0\0" + zlib.compress(b"a" * 900_000, 9)
    return png(8, 8, 8, 2, *[chunk(kind, packed)] * count, filled=True)


def packed_profile(size: int) -> bytes:
    squeeze = zlib.compressobj(9)
    body = b"".join(squeeze.compress(bytes(1_000_000)) for _ in range(size // 1_000_000))
    return png(8, 8, 8, 2, chunk(b"iCCP", b"x\0\0" + body + squeeze.flush()), filled=True)


PALETTE = chunk(b"PLTE", bytes(768))

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "png, RGB": (lambda: png(SIDE, SIDE, 8, 2), "bytes to decode"),
    "png, RGBA": (lambda: png(SIDE, SIDE, 8, 6), "bytes to decode"),
    "png, RGBA of 16 bits": (lambda: png(SIDE, SIDE, 16, 6), "bytes to decode"),
    "png, grey and alpha of 16 bits": (lambda: png(SIDE, SIDE, 16, 4), "bytes to decode"),
    "png, grey of 16 bits": (lambda: png(SIDE, SIDE, 16, 0), "bytes to decode"),
    "png, no palette": (lambda: png(8, 8, 8, 3, filled=True), "palette"),
    "png, palette of no colour": (
        lambda: png(8, 8, 8, 3, chunk(b"PLTE", b"\1\2"), filled=True),
        "palette",
    ),
    "png, chunks": (
        lambda: png(8, 8, 8, 2, chunk(b"tIME", bytes(7)) * 20_000, filled=True),
        "chunks",
    ),
    "jpeg, 1,000 scans": (lambda: scans(1_000, 64), "more than 100 scans"),
    "jpeg, 90 scans of 64 megapixels": (lambda: scans(90, 8_000), "megapixels"),
    "jpeg, several scans, 197 megapixels": (lambda: scans(0, 14_030), "bytes to decode"),
    "jpeg, nothing": (lambda: into_jpeg(b"\xff" * 1_000_000), "of nothing"),
    "jpeg, segments": (lambda: into_jpeg(b"\xff\xfe\0\x02" * 50_000), "segments"),
    "gif, extensions": (lambda: GIF + b"\x21\xfe\x01a\0" * 20_000 + FRAME + b";", "blocks"),
    "gif, no palette": (
        lambda: b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + FRAME + b";",
        "palette",
    ),
    "tiff, tags": (lambda: tags(60_000, 1, 0), "tags"),
    "tiff, values": (lambda: tags(3_000, 100_000, 200_000), "claim more bytes"),
    "webp, chunks": (lambda: webp_chunks(20_000), "chunks"),
    "webp, 100 megapixels": (
        lambda: encoded("WEBP", "RGB", 10_000, 10_000, lossless=True, quality=0, method=0),
        "bytes to decode",
    ),
    "avif, 67 megapixels": (
        lambda: encoded("AVIF", "RGB", 8192, 8192, speed=10),
        "bytes to decode",
    ),
    "jpeg 2000, 100 megapixels": (
        lambda: encoded("JPEG2000", "RGB", 10_000, 10_000),
        "bytes to decode",
    ),
    "ppm, as text": (lambda: b"P3\n900 900\n255\n" + b"0 " * 2_430_000, "numbers as text"),
    "ppm, comment": (lambda: b"P6 #" + b"a" * 10**6 + b"\n5 5 255\n" + bytes(75), "header"),
    "pgm, odd depth": (lambda: b"P5 3000 3000 4095\n" + bytes(18_000_000), "values up to 4095"),
    "bmp, packed": (
        lambda: b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + struct.pack(
            "<IiiHHIIiiII", 40, 2000, 2000, 1, 8, 1, 0, 0, 0, 256, 0
        ) + b"\1\1" * 3_000_000,
        "run-length",
    ),
}  # fmt: skip
"""Files and what their refusal says."""

READ: dict[str, Callable[[], bytes]] = {
    "png, 1 bit, 198 megapixels": lambda: png(SIDE, SIDE, 1, 0, filled=True),
    "png, palette and transparency, 100 megapixels": lambda: png(
        10_000, 10_000, 8, 3, PALETTE, chunk(b"tRNS", b"\0"), filled=True
    ),
    "png, text": lambda: text(5_000),
    "png, profile": lambda: packed_profile(200_000_000),
    "png, EXIF": lambda: png(
        8, 8, 8, 2, chunk(b"eXIf", tags(3_000, 400_000, 500_000)), filled=True
    ),
    "jpeg, EXIF": lambda: into_jpeg(
        b"\xff\xe1" + struct.pack(">H", 65_408) + b"Exif\0\0" + tags(5_000, 32_768, 65_400)
    ),
    "jpeg, 100 scans": lambda: scans(90, 1_000),
    "gif, frames": lambda: GIF + FRAME * 200_000 + b";",
    "gif, comment": lambda: (
        GIF + b"\x21\xfe" + (b"\xff" + b"a" * 255) * 40_000 + b"\0" + FRAME + b";"
    ),
    "tiff, pages": lambda: tiff_pages(40_000),
    "ppm, odd depth": lambda: b"P6 2000 2000 254\n" + bytes(12_000_000),
    "jpeg 2000, 24 megapixels": lambda: encoded("JPEG2000", "RGB", 6_000, 4_000),
}
"""Files that are read all the same, for little."""
