"""From whatever names many pictures to one (key, source) after the other, never a list of all."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import AsyncIterable, Iterable, Iterator, Sized
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from internvl_modal.batch import manifests
from internvl_modal.errors import ConfigError
from internvl_modal.images.address import is_url
from internvl_modal.schema import ImageSource

__all__ = ["Images", "Item", "is_picture", "item", "read", "size_of"]

Images: TypeAlias = (
    "str | os.PathLike[str] | Iterable[ImageSource | tuple[str, ImageSource]]"
    " | AsyncIterable[ImageSource | tuple[str, ImageSource]]"
)
"""A folder, a glob, a manifest, a tar, or any iterable of sources or (key, source) pairs."""

_PICTURE = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|hei[cf]|avif|jp2|ppm)", re.IGNORECASE
)


class Item(NamedTuple):
    """One input."""

    key: str
    source: ImageSource


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return _PICTURE.fullmatch(name, max(0, name.rfind("."))) is not None


def item(given: Any, index: int) -> Item:
    """The input and its key: its name in a pair, its path or URL, else its number."""
    if isinstance(given, tuple) and len(given) == 2:
        return Item(str(given[0]), given[1])
    if isinstance(given, os.PathLike) or (isinstance(given, str) and not _is_data(given)):
        return Item(os.fsdecode(given), given)
    return Item(f"#{index}", given)


def size_of(images: Images) -> int | None:
    """How many there are, where that is known without reading."""
    return len(images) if isinstance(images, Sized) and not isinstance(images, str) else None


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
    return iter(images)


def _read_path(name: str, column: str | None) -> Iterator[Any]:
    if is_url(name) or _is_data(name):
        return iter([name])
    path = Path(name)
    with manifests.readable(name):
        is_folder, exists = path.is_dir(), path.exists()
    if is_folder:
        return _walk_all(name)
    if not exists:
        if glob.has_magic(name):
            return _expand(name, column)
        raise ConfigError(
            f"{name} does not exist", hint="give a folder, a glob, a manifest, a tar or an iterable"
        )
    reader = manifests.READERS.get(path.suffix.lower())
    if reader is not None:
        return reader(path, column)
    if manifests.is_tar(path):
        return manifests.read_tar(path, is_picture)
    return iter([name])


class _Unreadable:
    """Stands for the pictures of a folder that cannot be listed: reading it says why."""

    def __init__(self, name: str, error: OSError) -> None:
        self.name, self._error = name, error

    def read(self, size: int = -1, /) -> bytes:
        raise self._error


def _walk_all(folder: str) -> Iterator[Any]:
    with manifests.readable(folder):
        yield from _walk(folder)


def _walk(folder: str) -> Iterator[Any]:
    """Pictures below ``folder`` as the system lists them; hidden ones are left out."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif is_picture(entry.name):
                yield entry.path
    for each in sorted(below):
        try:
            yield from _walk(each)
        except OSError as error:
            yield each, _Unreadable(each, error)


def _expand(pattern: str, column: str | None) -> Iterator[Any]:
    """Files that match: pictures, tars, and manifests where the pattern ends as they do."""
    names = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
    for number in count():
        name = next(names, None)
        if name is None:
            if number == 0:
                raise ConfigError(f"nothing matches {pattern}", hint="check the pattern")
            return
        path = Path(name)
        suffix = path.suffix.lower()
        manifest = suffix in manifests.READERS and pattern.lower().endswith(suffix)
        if manifest or manifests.is_tar(path):
            yield from _read_path(name, column)
        elif path.is_file() and is_picture(name):
            yield name


def _is_data(text: str) -> bool:
    return text[:5].lower() == "data:"
