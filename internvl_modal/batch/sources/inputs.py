"""From whatever names many pictures to one (key, source) after the other, never a list of all."""

from __future__ import annotations

import glob
import os
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sized
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from internvl_modal.batch.sources import manifests
from internvl_modal.batch.sources.folders import is_picture, walk
from internvl_modal.batch.sources.keys import is_data
from internvl_modal.errors import ConfigError
from internvl_modal.images.names import is_url
from internvl_modal.schema.inputs import ImageSource

__all__ = ["Images", "check_column", "read", "size_of"]

Images: TypeAlias = (
    str
    | os.PathLike[str]
    | Mapping[str, ImageSource]
    | Iterable[ImageSource | tuple[str, ImageSource]]
    | AsyncIterable[ImageSource | tuple[str, ImageSource]]
)
"""A folder, a glob, a manifest, a tar, a mapping of keys to sources, or any iterable of sources or
(key, source) pairs."""


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
    if is_url(name) or is_data(name):
        return iter([name])
    path = Path(name)
    with manifests.readable(name):
        is_folder, exists = path.is_dir(), bool(name) and path.exists()
    if is_folder and name:
        return _any(walk(str(path)), name)
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
