"""From whatever names many pictures to one (key, source) after the other, never a list of all.

The one table of what ``describe_many`` takes. Errors come in two kinds: what the caller has written
wrong is raised before the first picture, what is broken in the data becomes that picture's failure.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any, TypeAlias

from internvl_modal.batch.sources import folders, remote
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.batch.sources.frames import Frame, rows_of
from internvl_modal.batch.sources.image_folder import read_image_folder
from internvl_modal.batch.sources.manifests import read_csv, read_jsonl, read_text
from internvl_modal.batch.sources.pages import read_pdf
from internvl_modal.batch.sources.parquet import read_parquet
from internvl_modal.batch.sources.patterns import braces, has_braces
from internvl_modal.batch.sources.places import (
    LocalFile,
    Place,
    StandardInput,
    has_scheme,
    is_remote,
    path_of,
    shown,
)
from internvl_modal.batch.sources.rows import Table
from internvl_modal.batch.sources.tars import is_tar, read_tar
from internvl_modal.batch.sources.unreadable import going_on, readable
from internvl_modal.errors import ConfigError
from internvl_modal.images.names import is_data, is_url
from internvl_modal.schema.inputs import ImageSource

__all__ = ["STANDARD_INPUT", "Images", "Sources", "check_choice", "check_row", "read", "size_of"]

STANDARD_INPUT = "-"
"""The name of a list on standard input, where there are several names or the command line."""


@dataclass(frozen=True)
class Sources:
    """Several names, each a source of its own, as a shell gives them."""

    names: tuple[str, ...]


Images: TypeAlias = (
    str
    | os.PathLike[str]
    | Mapping[str, ImageSource]
    | Frame
    | Sources
    | Iterable[ImageSource | tuple[str, ImageSource] | Mapping[str, Any]]
    | AsyncIterable[ImageSource | tuple[str, ImageSource] | Mapping[str, Any]]
)
"""A folder, a glob, a manifest, a tar, an address of these, a data set or frame, a mapping of keys
to sources, or any iterable of sources, (key, source) pairs or rows."""

READERS: Mapping[str, Callable[[Place, Choice], Iterator[Any]]] = {
    ".txt": read_text,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".pdf": read_pdf,
}
"""By ending: a manifest has no magic bytes. A new format is a row here and a reader."""


def size_of(images: Images) -> int | None:
    """How many there are, where that is known without reading.

    For the bar's end only: nothing is counted by reading.
    """
    return len(images) if isinstance(images, Sized) and not isinstance(images, str) else None


def check_choice(images: object, choice: Choice) -> None:
    """Raise ConfigError where columns or pages are named of what has none."""
    if choice.pages is not None and not is_pdf(images):
        raise ConfigError(
            f"pages={choice.pages!r}, but the source is no PDF", hint="it is for the path of a .pdf"
        )
    if not choice.given:
        return
    if isinstance(images, Sources):
        fits = any(_has_columns(name, choice) for name in images.names)
    elif isinstance(images, str | os.PathLike):
        fits = _has_columns(os.fspath(images), choice)
    elif isinstance(images, Mapping):
        fits = hasattr(images, "column_names")
    else:
        fits = not isinstance(images, list | tuple) or isinstance(next(iter(images), None), Mapping)
    if not fits:
        raise _no_columns(choice)


def is_pdf(images: object) -> bool:
    """Whether a path ends as those of PDFs do."""
    return isinstance(images, str | os.PathLike) and _ending(os.fspath(images)) == ".pdf"


def _ending(name: str) -> str:
    """By which a reader is chosen, in lower case."""
    return Path(path_of(name)).suffix.lower()


def _has_columns(name: str, choice: Choice) -> bool:
    suffix, path = _ending(name), path_of(name)
    if choice.delimiter is not None:
        return suffix in (".csv", ".tsv")
    return suffix not in (".txt", ".pdf") and not is_tar(path) and not is_picture(path)


def _no_columns(choice: Choice) -> ConfigError:
    return ConfigError(
        f"{choice.given}, but the source has no columns",
        hint="they are for .jsonl, .csv, .tsv, .parquet, image folders, data sets and frames",
    )


def check_row(given: Any, choice: Choice) -> Any:
    """One thing of an iterable; raises ConfigError if columns are named and it has none."""
    if choice.given and not isinstance(given, Mapping):
        raise _no_columns(choice)
    return given


def read(images: Any, choice: Choice) -> Iterator[Any]:
    """Sources, pairs or rows, one by one; raises ConfigError for what is not many pictures."""
    if isinstance(images, str | os.PathLike):
        return _read_name(os.fspath(images), choice)
    if isinstance(images, Sources):
        return _each(images.names, choice)
    if _is_one_picture(images):
        raise ConfigError(
            f"an array of the shape {images.shape} is one picture, not many",
            hint="pass [array], or an array of pictures; describe() takes one",
        )
    if (rows := rows_of(images)) is not None:
        return Table(column=choice.column, key=choice.key, fields=choice.fields).pairs(rows)
    if isinstance(images, bytes | bytearray | memoryview) or not isinstance(images, Iterable):
        raise ConfigError(
            f"{type(images).__name__} is not many pictures",
            hint="give a folder, a glob, a manifest, a tar or an iterable; describe() takes one",
        )
    # It would be read line by line, and its bytes taken for pictures.
    if hasattr(images, "read"):
        raise ConfigError("an open file is not many pictures", hint="give its path")
    if isinstance(images, Mapping):
        return iter(images.items())
    return (check_row(each, choice) for each in images) if choice.given else iter(images)


def _is_one_picture(images: Any) -> bool:
    """Whether an array has the shape of a picture, whose rows would be taken for pictures."""
    if not hasattr(images, "__array_interface__") or images.dtype.kind not in "buif":
        return False
    return images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3, 4))


def _each(names: Sequence[str], choice: Choice) -> Iterator[Any]:
    """What each name gives; one that is none is a failure, unless it is alone."""
    for name in names:
        found = (
            read_text(StandardInput(), choice)
            if name == STANDARD_INPUT
            else _read_name(name, choice)
            if len(names) == 1
            else _lazily(name, choice)
        )
        yield from found if len(names) == 1 else going_on(name, found)


def _lazily(name: str, choice: Choice) -> Iterator[Any]:
    """A name that is looked at when its turn has come, so that its error is its own."""
    yield from _read_name(name, choice)


def _read_name(name: str, choice: Choice) -> Iterator[Any]:
    """One source, or those that a pattern names."""
    if is_data(name):
        return iter([name])
    if has_scheme(name):
        return _read_address(name, choice)
    # Existing files win over patterns: a file may have brackets in its name.
    path = Path(name)
    with readable(name):
        is_folder, exists = path.is_dir(), bool(name) and path.exists()
    if is_folder and name:
        return _any(read_image_folder(str(path), choice), name)
    if exists:
        return _read_file(LocalFile(str(path)), choice)
    if has_braces(name) or has_magic(name):
        return _any(_several(name, choice, folders.matching), name)
    raise ConfigError(
        f"{name or repr(name)} does not exist",
        hint="give a folder, a glob, a manifest, a tar or an iterable",
    )


def _read_address(name: str, choice: Choice) -> Iterator[Any]:
    """What a URL or an address of fsspec means: a file, a folder, a pattern, or one picture."""
    if has_braces(name) or (is_remote(name) and has_magic(name)):
        return _any(_several(name, choice, remote.matching), shown(name))
    if is_url(name) and _ending(name) not in READERS and not is_tar(path_of(name)):
        return iter([name])
    if not is_url(name):
        kind = remote.kind(name)
        if kind == "folder":
            return _any(remote.walk(name), shown(name))
        if not kind:
            raise ConfigError(f"{shown(name)} does not exist", hint="check the address")
    return _read_file(remote.RemoteFile(name), choice)


def _read_file(place: LocalFile | remote.RemoteFile, choice: Choice) -> Iterator[Any]:
    """What one file holds, by its ending."""
    reader = READERS.get(_ending(place.name))
    if reader is not None:
        return reader(place, choice)
    if is_tar(path_of(place.name)):
        return _any(read_tar(place, is_picture), place.name)
    if not is_picture(place.name):
        raise ConfigError(
            f"{place.name} is no picture by its ending, no tar, and not a manifest: "
            + ", ".join(READERS),
            hint="list the pictures in one of these, or pass [path] for a single one",
        )
    return iter([place.name])


def _any(found: Iterator[Any], name: str) -> Iterator[Any]:
    """What is found; raises ConfigError where that is nothing."""
    empty = True
    for each in found:
        empty = False
        yield each
    if empty:
        raise ConfigError(
            f"{name} holds no file with a picture's ending",
            hint="list the files in a .txt, pass an iterable of paths, or a glob of its shards",
        )


def _several(
    pattern: str, choice: Choice, matching: Callable[[str], Iterator[Any]]
) -> Iterator[Any]:
    """Pictures, tars, and manifests where the pattern ends as they do, each on its own.

    A name that braces stand for has to be there; what a glob does not match does not.
    """
    ending = _ending(pattern)
    nothing = True
    for name in braces(pattern):
        found = matching(name) if has_magic(path_of(name)) else iter([name])
        for each in found:
            nothing = False
            if isinstance(each, tuple):
                yield each
            else:
                yield from going_on(each, _one_of(each, each == name, ending, choice))
    if nothing:
        raise ConfigError(f"nothing matches {shown(pattern)}", hint="check the pattern")


def _one_of(name: str, named: bool, ending: str, choice: Choice) -> Iterator[Any]:
    """What one of several gives; only what is ``named`` must be a source."""
    suffix = _ending(name)
    meant = named or suffix == ending
    if (suffix in READERS and suffix == ending) or is_tar(path_of(name)):
        place = remote.RemoteFile(name) if has_scheme(name) else LocalFile(name)
        # A shard of zeros, as a crash leaves it, reads as a tar of nothing: no loss in silence.
        yield from _read_file(place, choice) if meant else read_tar(place, is_picture)
    elif named:
        yield from _read_name(name, choice)
    elif is_picture(name) and (has_scheme(name) or not Path(name).is_dir()):
        yield name
