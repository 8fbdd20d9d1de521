"""Files that list pictures or hold them: text, JSON lines, CSV, Parquet, WebDataset tars."""

from __future__ import annotations

import csv
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from internvl_modal.errors import ConfigError, MissingExtraError
from internvl_modal.images.names import is_url

COLUMNS = (
    "image", "path", "image_path", "file", "filename", "file_name", "url", "image_url", "source",
)  # fmt: skip
"""Where a manifest holds its pictures, unless told; case does not matter."""
ROWS = 64
"""Read from Parquet at once: they may hold whole pictures."""

Pair = tuple[str, Any]
Reader = Callable[[Path, "str | None"], Iterator[Pair]]


class Unreadable:
    """Stands for pictures that cannot be listed: reading it says why."""

    def __init__(self, name: str, error: OSError | ValueError) -> None:
        self.name, self._error = name, error

    def read(self, size: int = -1, /) -> bytes:
        """Raise the error."""
        raise self._error


@contextmanager
def readable(name: object) -> Iterator[None]:
    """Turn what the system says into an error that names the file."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{name} cannot be read: {error.strerror or error}", hint="check its permissions"
        ) from error


@contextmanager
def _text_of(path: Path) -> Iterator[TextIO]:
    """The file as text; raises ConfigError where it is none."""
    with readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield file
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{path}: {error}", hint="save it as UTF-8 text") from error


def _read_text(path: Path, column: str | None) -> Iterator[Pair]:
    """One path or URL on each line."""
    with _text_of(path) as file:
        for line in file:
            if name := line.strip():
                yield name, _resolve(name, path)


def _read_jsonl(path: Path, column: str | None) -> Iterator[Pair]:
    with _text_of(path) as file:
        yield from _rows(_objects(file, path), path, column)


def _read_csv(path: Path, column: str | None) -> Iterator[Pair]:
    with _text_of(path) as file:
        yield from _rows(csv.DictReader(file), path, column)


def _read_parquet(path: Path, column: str | None) -> Iterator[Pair]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    try:
        opened = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", hint="is it a Parquet file?") from error
    with opened as file:
        names = file.schema_arrow.names
        chosen = _column(names, path, column)
        wanted = [chosen] + (["key"] if "key" in names and chosen != "key" else [])
        batches = file.iter_batches(ROWS, columns=wanted)
        yield from _rows((row for batch in batches for row in batch.to_pylist()), path, chosen)


READERS: Mapping[str, Reader] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def is_tar(path: Path) -> bool:
    """Whether a name is that of a tar, packed or not."""
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"))


def read_tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[Pair]:
    """Pictures of a tar in its order, without unpacking it; keys are TAR/MEMBER."""
    try:
        with readable(path), tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile() and wanted(member.name):
                    file = archive.extractfile(member)
                    yield f"{path}/{member.name}", file.read() if file else b""
    except tarfile.TarError as error:
        raise ConfigError(
            f"{path} is damaged: {error}", hint="make or download it again"
        ) from error


def _objects(lines: Iterable[str], path: Path) -> Iterator[Mapping[str, Any] | ValueError]:
    """What lines hold; an error where that is no object, unless the first one is wrong already."""
    good = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        if isinstance(document, dict):
            good = True
            yield document
        elif good:
            yield ValueError(f"line {number} is no JSON object")
        else:
            raise ConfigError(
                f"line {number} of {path} is no JSON object", hint='write {"image": ...}'
            )


def _rows(
    rows: Iterable[Mapping[str, Any] | ValueError], path: Path, column: str | None
) -> Iterator[Pair]:
    """A row's picture, by its ``key`` column, else by its path, else by its number."""
    chosen: str | None = None
    for number, row in enumerate(rows):
        if isinstance(row, ValueError):
            yield f"{path}#{number}", Unreadable(f"{path}#{number}", row)
            continue
        chosen = chosen or _column(list(row), path, column)
        value = row.get(chosen)
        name = value if isinstance(value, str) and value[:5] != "data:" else None
        if isinstance(value, dict):  # as Hugging Face's data sets hold pictures
            name = value.get("path")
            value = value.get("bytes") or name
        key = row.get("key") if chosen != "key" else None
        yield str(key or name or f"{path}#{number}"), _resolve(value, path) if value else []


def _column(names: Iterable[str], path: Path, column: str | None) -> str:
    there = {name if column else str(name).lower(): name for name in names}
    wanted = (column,) if column else COLUMNS
    found = next((there[name] for name in wanted if name in there), None)
    if found is None:
        raise ConfigError(
            f"{path} has no column {column or 'of pictures'}",
            hint=f"pass column=; there are {', '.join(map(str, names))}",
        )
    return found


def _resolve(value: Any, manifest: Path) -> Any:
    """A relative path is meant from the manifest's own folder."""
    if not isinstance(value, str) or is_url(value) or value[:5].lower() == "data:":
        return value
    return os.path.join(os.path.dirname(manifest), value)  # noqa: PTH118, PTH120 - no ./ before it
