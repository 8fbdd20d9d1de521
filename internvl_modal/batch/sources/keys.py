"""What an input is known by: its name, its path or, in memory, its place and content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from internvl_modal.schema.inputs import ImageSource

BAND = 64
"""Rows of a picture that are copied at once."""


class Item(NamedTuple):
    """One input."""

    key: str
    source: ImageSource
    numbered: bool = False
    """Whether its place is all that it is known by."""


def item(given: Any, index: int) -> Item:
    """The input and its key: its name in a pair, its path or URL, else its number."""
    if isinstance(given, tuple) and len(given) == 2:
        return Item(str(given[0]), given[1])
    if isinstance(given, os.PathLike) or (isinstance(given, str) and not is_data(given)):
        return Item(str(os.fsdecode(given)), given)
    return Item(f"#{index}", given, numbered=True)


def item_with_content(given: Any, index: int, max_pixels: int) -> Item:
    """With a digest beside the number: a later run may have another picture at that place."""
    found = item(given, index)
    if not found.numbered:
        return found
    try:
        digest = _digest(given, max_pixels).hex()[:12]
    except Exception:  # noqa: BLE001 - describing it will say why
        return found
    return found._replace(key=f"{found.key}-{digest}")


def _digest(source: Any, max_pixels: int) -> bytes:
    digest = hashlib.sha256()
    for part in _contents(source, max_pixels):
        digest.update(part)
    return digest.digest()


def _contents(source: Any, max_pixels: int) -> Iterator[bytes | bytearray | memoryview]:
    """What tells a picture in memory from others; raises for what is none, or is read only once."""
    if isinstance(source, list | tuple):
        for each in source:
            yield _digest(each, max_pixels)
    elif isinstance(source, str | os.PathLike):
        yield os.fsencode(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield source
    elif hasattr(source, "getpalette"):  # Pillow's
        width, height = source.size
        if width * height > max_pixels:
            raise ValueError
        yield repr((source.mode, source.size, source.getpalette())).encode()
        for top in range(0, height, BAND):
            yield source.crop((0, top, width, min(top + BAND, height))).tobytes()
    elif hasattr(source, "__array_interface__"):
        yield repr((source.shape, source.dtype)).encode()
        yield source.tobytes()
    else:
        start = source.tell()
        source.seek(start)
        try:
            yield source.read()
        finally:
            source.seek(start)


def is_data(text: str) -> bool:
    """Whether ``text`` is a data URL."""
    return text[:5].lower() == "data:"
