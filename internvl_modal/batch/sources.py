"""From whatever names many pictures to one (key, source) after the other, never a list of all."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sized
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from internvl_modal.batch import manifests
from internvl_modal.errors import ConfigError
from internvl_modal.images.address import is_url
from internvl_modal.schema import ImageSource

__all__ = [
    "Images",
    "Item",
    "check_column",
    "is_picture",
    "item",
    "item_with_content",
    "read",
    "size_of",
]

Images: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, ImageSource]"
    " | Iterable[ImageSource | tuple[str, ImageSource]]"
    " | AsyncIterable[ImageSource | tuple[str, ImageSource]]"
)
"""A folder, a glob, a manifest, a tar, a mapping of keys to sources, or any iterable of sources or
(key, source) pairs."""

BAND = 64
"""Rows of a picture that are copied at once."""

_PICTURE = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|hei[cf]|avif|jp2|ppm)", re.IGNORECASE
)


class Item(NamedTuple):
    """One input."""

    key: str
    source: ImageSource
    numbered: bool = False
    """Whether its place is all that it is known by."""


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return _PICTURE.fullmatch(name, max(0, name.rfind("."))) is not None


def item(given: Any, index: int) -> Item:
    """The input and its key: its name in a pair, its path or URL, else its number."""
    if isinstance(given, tuple) and len(given) == 2:
        return Item(str(given[0]), given[1])
    if isinstance(given, os.PathLike) or (isinstance(given, str) and not _is_data(given)):
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


def size_of(images: Images) -> int | None:
    """How many there are, where that is known without reading."""
    return len(images) if isinstance(images, Sized) and not isinstance(images, str) else None


def check_column(images: object, column: str | None) -> None:
    """Raise ConfigError for a ``column`` of what has none."""
    if column is None:
        return
    path = os.fspath(images) if isinstance(images, str | os.PathLike) else ""
    if Path(path).suffix.lower() not in (".jsonl", ".csv", ".parquet"):
        raise ConfigError(
            f"column={column!r}, but the source has no columns",
            hint="it is for .jsonl, .csv and .parquet manifests; of a DataFrame give df['path']",
        )


def read(images: Any, column: str | None) -> Iterator[Any]:
    """Sources or pairs, one by one; raises ConfigError for what is not many pictures."""
    if isinstance(images, str | os.PathLike):
        return _read_path(os.fspath(images), column)
    if isinstance(images, bytes | bytearray | memoryview) or not isinstance(images, Iterable):
        raise ConfigError(
            f"{type(images).__name__} is not many pictures",
            hint="give a folder, a glob, a manifest, a tar or an iterable; describe() takes one",
        )
    if hasattr(images, "read"):
        raise ConfigError("an open file is not many pictures", hint="give its path")
    if hasattr(images, "columns"):
        raise ConfigError(
            f"a {type(images).__name__} is not many pictures",
            hint="pass df['path'] or zip(df['id'], df['path'])",
        )
    return iter(images.items() if isinstance(images, Mapping) else images)


def _read_path(name: str, column: str | None) -> Iterator[Any]:
    if is_url(name) or _is_data(name):
        return iter([name])
    path = Path(name)
    with manifests.readable(name):
        is_folder, exists = path.is_dir(), bool(name) and path.exists()
    if is_folder and name:
        return _any(_walk_all(str(path)), name)
    if not exists:
        if glob.has_magic(name):
            return _any(_expand(str(path), column), name)
        raise ConfigError(
            f"{name or repr(name)} does not exist",
            hint="give a folder, a glob, a manifest, a tar or an iterable",
        )
    reader = manifests.READERS.get(path.suffix.lower())
    if reader is not None:
        return reader(path, column)
    if manifests.is_tar(path):
        return _any(manifests.read_tar(path, is_picture), name)
    if not is_picture(name):
        raise ConfigError(
            f"{name} is no picture by its ending, no tar, and not a manifest: "
            + ", ".join(manifests.READERS),
            hint="list the pictures in one of these, or pass [path] for a single one",
        )
    return iter([name])


def _any(found: Iterator[Any], name: str) -> Iterator[Any]:
    """What is found; raises ConfigError where that is nothing."""
    empty = True
    for each in found:
        empty = False
        yield each
    if empty:
        raise ConfigError(
            f"{name} holds no file with a picture's ending",
            hint="list the files in a .txt, or pass an iterable of paths",
        )


def _walk_all(folder: str) -> Iterator[Any]:
    with manifests.readable(folder):
        yield from _walk(folder)


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[Any]:
    """Pictures below ``folder`` as the system lists them; hidden ones are left out.

    Links to folders are followed, but for those that lead back to one ``above``.
    """
    above = (*above, os.path.realpath(folder))
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - never raises
                if os.path.realpath(entry.path) not in above:
                    below.append(entry.path)
            elif is_picture(entry.name):
                yield entry.path
    for each in sorted(below):
        try:
            yield from _walk(each, above)
        except OSError as error:
            yield each, manifests.Unreadable(each, error)


def _expand(pattern: str, column: str | None) -> Iterator[Any]:
    """Files that match: pictures, tars, and manifests where the pattern ends as they do."""
    names = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
    first = next(names, None)
    if first is None:
        raise ConfigError(f"nothing matches {pattern}", hint="check the pattern")
    for name in chain([first], names):
        path = Path(name)
        suffix = path.suffix.lower()
        manifest = suffix in manifests.READERS and pattern.lower().endswith(suffix)
        if manifest:
            yield from _read_path(name, column)
        elif manifests.is_tar(path):
            yield from manifests.read_tar(path, is_picture)
        elif path.is_file() and is_picture(name):
            yield name


def _is_data(text: str) -> bool:
    return text[:5].lower() == "data:"
