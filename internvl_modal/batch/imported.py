"""Captions that somebody else has written: taken as done, by picture.

They are known by their key, and by the path of the picture that they name, so that a list with
other words for the same file does. Texts stay in a temporary file; memory holds a hash of each.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

from internvl_modal.batch.key_table import KeyTable
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome, key_hash
from internvl_modal.batch.schemas import column
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.folders import walk
from internvl_modal.batch.sources.inputs import read
from internvl_modal.batch.sources.keys import Item, item
from internvl_modal.batch.sources.places import has_scheme
from internvl_modal.errors import ConfigError
from internvl_modal.schema.results import Description, Usage

TEXTS = ("text", "caption", "description")
"""Columns that hold a caption, in this order."""


class Imported:
    """What others have written, until ``close``."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._spool: IO[bytes] | None = None
        self._places = KeyTable(2)
        self._end = 0

    def close(self) -> None:
        """Forget."""
        if self._spool is not None:
            self._spool.close()

    def load(self) -> None:
        """Read what ``import_=`` names; raises ConfigError where there is nothing in it."""
        given = self._job.settings.import_
        if given is None:
            return
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - see close
        empty = True
        for marks, row in _rows(given):
            if _has_text(row, self._job):
                empty = False
                self._keep(marks, row)
        if empty:  # all would be asked about, and paid for
            names = self._job.prompts.names or TEXTS
            raise ConfigError(
                "import_= holds no caption",
                hint=f"check its path and its columns: {', '.join(names)}, or a schema's fields",
            )

    def find(self, found: Item) -> Outcome | None:
        """The outcome of an input that somebody has described; None for one to be asked about."""
        if self._spool is None:
            return None
        place = next((p for m in _marks(found) if (p := self._places.get(m)) is not None), None)
        if place is None:
            return None
        self._spool.seek(place[0])
        row: dict[str, Any] = json.loads(self._spool.read(place[1]))
        job, value = self._job, None
        model = row.get("model") if isinstance(row.get("model"), str) else ""
        if job.wanted is not None:
            try:
                value = job.wanted.read(_fields(row, job))
            except ValueError:
                return None
        answers = {name: _described(row[name], model) for name in job.prompts.names}
        text = "\n\n".join(row[name] for name in answers) if answers else _text(row)
        if value is not None and not text:
            text = json.dumps(_fields(row, job), ensure_ascii=False)
        return Outcome(
            found.key,
            found.source,
            _described(text, model),
            value=value,
            answers=answers,
            prompt=job.prompts.named(found.texts),
            imported=True,
        )

    def _keep(self, marks: Iterable[int], row: Mapping[str, Any]) -> None:
        data = json.dumps({name: _plain(value) for name, value in row.items()}).encode()
        if self._spool is None:  # closed meanwhile
            return
        self._spool.seek(self._end)
        self._spool.write(data)
        for mark in marks:
            self._places.put(mark, self._end, len(data))
        self._end += len(data)


def _described(text: str, model: str | None) -> Description:
    return Description(text=text, model=model or "", finish_reason="stop", usage=Usage())


def _plain(value: Any) -> Any:
    """What JSON can hold; a picture in a column is nobody's caption."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else None


def _has_text(row: Mapping[str, Any], job: Job) -> bool:
    """Whether a row holds what is asked for; a failure of an earlier batch does not."""
    if row.get("error") or row.get("error_type"):
        return False
    if job.prompts.names:
        return all(isinstance(row.get(name), str) and row[name] for name in job.prompts.names)
    return bool(_text(row) if job.wanted is None else _fields(row, job))


def _text(row: Mapping[str, Any]) -> str:
    texts = (row.get(name) for name in TEXTS)
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


def _fields(row: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The columns that are fields of the schema, by the names that those have."""
    properties: Any = {} if job.wanted is None else job.wanted.document.get("properties", {})
    return {name: row[column(name)] for name in properties if row.get(column(name)) is not None}


def _rows(given: Any) -> Iterator[tuple[list[int], Mapping[str, Any]]]:
    """Marks of a picture, and the row with its caption."""
    if isinstance(given, Mapping):
        for key, text in given.items():
            yield _marks(item((str(key), str(key)), 0)), {"text": text}
        return
    if isinstance(given, str | os.PathLike) and Path(given).is_dir():
        for path in walk(os.fspath(given), lambda name: name.endswith(".txt")):
            if isinstance(path, str):
                text = Path(path).read_text(encoding="utf-8", errors="replace").strip()
                yield [_stem_mark(path.removesuffix(".txt"))], {"text": text}
        return
    for number, each in enumerate(_read(given)):
        row = getattr(each, "row", each if isinstance(each, Mapping) else None)
        if row is None:
            raise ConfigError(
                "import_= holds no rows", hint="a table with a column of captions, or a folder"
            )
        if isinstance(each, Mapping):  # a row of an iterable
            name = next((each[n] for n in ("key", "image", "path", "file_name") if n in each), "")
            yield _marks(item((str(name), name), number)), row
        else:
            yield _marks(item(each, number)), row


def _read(given: Any) -> Iterator[Any]:
    """Rows with their pictures; what a batch has written has a key in place of one."""
    found = read(given, Choice(fields=None))
    try:
        first = next(found, None)
    except ConfigError:
        found = read(given, Choice(column="key", fields=None))
        first = next(found, None)
    return iter(()) if first is None else chain([first], found)


def _marks(found: Item) -> list[int]:
    """Hashes of what a picture may be known by: its key, its path, its path without an ending."""
    source, marks = found.source, [key_hash(f"key\0{found.key}")]
    if isinstance(source, str | os.PathLike) and not has_scheme(os.fsdecode(source)):
        path = os.path.abspath(os.fsdecode(source))  # noqa: PTH100 - a text
        stem = os.path.splitext(path)[0]  # noqa: PTH122 - the same
        marks += [key_hash(f"path\0{path}"), _stem_mark(path), _stem_mark(stem)]
    return marks


def _stem_mark(path: str) -> int:
    return key_hash(f"stem\0{os.path.abspath(path)}")  # noqa: PTH100 - a text
