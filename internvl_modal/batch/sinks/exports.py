"""Files that are made whole at the end, from a journal that keeps every line: CSV, imagefolder.

CSV, a table of ``imagefolder`` and a data set have no torn lines that could be told, and no place
for failures. So lines go to a journal beside them, which a kill leaves whole and a later run reads;
what is asked for is made of it when the run ends, and takes the place of the old one at once.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from internvl_modal.batch.key_table import KeyTable
from internvl_modal.batch.outcome import FIELDS, Outcome, key_hash
from internvl_modal.batch.sinks.files import check_regular, full, replacing
from internvl_modal.batch.sinks.jsonl import JsonLines
from internvl_modal.batch.sinks.lines import Line, read_lines
from internvl_modal.batch.sinks.rows import flat, utf8
from internvl_modal.batch.sources.places import has_scheme
from internvl_modal.errors import ConfigError
from internvl_modal.protocol.endpoint import Endpoint

Make: TypeAlias = "Callable[[Path, Path, str, str], None]"
"""Is given the journal, where its work belongs, the run, and the revision of the model."""

_FIRST = ("key", "text")
_LAST = (
    "model", "finish_reason", "prompt_tokens", "completion_tokens", "seen", "tiles", "tokens",
    "warnings", "flags", "request_id", "error_type", "error_message", "error_text", "prompt",
    "attempts", "seconds", "run",
)  # fmt: skip


def journal_of(path: Path) -> Path:
    """Where the lines are of which ``path`` is made."""
    return path.parent / f".{path.name}.journal.jsonl"  # a folder such as "." has no name


class Exported(JsonLines):
    """A journal, and at the end what ``make`` makes of it."""

    def __init__(self, path: Path, *, resume: bool, retry_errors: bool, make: Make) -> None:
        super().__init__(journal_of(path), resume=resume, retry_errors=retry_errors, named=False)
        self._out, self._make = path, make
        self._revision = ""

    def told(self, endpoint: Endpoint) -> None:
        """Keep what a card tells of it."""
        self._revision = endpoint.revision

    def open(self, run: str) -> None:
        """Take the journal; raises ConfigError where somebody else has made what is there."""
        check_regular(self._out)
        if os.path.lexists(self._out) and not self._path.exists():
            raise ConfigError(
                f"{self._out} is there and was not made by a batch",
                hint=f"choose another out=, or bring its {self._path.name} back",
            )
        super().open(run)

    def close(self) -> None:
        """Make it anew, where there is something that is not in it."""
        try:
            if self._descriptor >= 0 and self._size and self._is_behind():
                self._sync()
                self._make(self._path, self._out, self._run, self._revision)
        finally:
            super().close()

    def _is_behind(self) -> bool:
        try:
            return self._out.stat().st_mtime_ns <= self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return True

    def _line(self, outcome: Outcome) -> dict[str, object]:
        """With the picture's own path, which its key need not be."""
        document, source = super()._line(outcome), outcome.source
        if isinstance(source, str | os.PathLike) and not has_scheme(os.fsdecode(source)):
            document["source"] = os.path.abspath(os.fsdecode(source))  # noqa: PTH100 - a text
        return document


def last_lines(journal: Path, run: str | None = None) -> Iterator[Line]:
    """The lines, of one run or of all; where a prompt has changed, only a key's last one."""
    wanted = KeyTable(1)
    for number, line in enumerate(read_lines(journal)):
        wanted.put(_mark(line), number)
    for number, line in enumerate(read_lines(journal)):
        if wanted.get(_mark(line)) == (number,) and run in (None, line.run):
            yield line


def _mark(line: Line) -> int:
    return key_hash(f"{line.run}\0{line.key}")


def make_csv(journal: Path, out: Path, run: str, revision: str) -> None:
    """A table of all lines, failures too; lists in a cell are JSON, texts are UTF-8."""
    names = dict.fromkeys(
        name for line in read_lines(journal) for name in line.document if name not in FIELDS
    )
    columns = [*_FIRST, *names, *_LAST]
    with full(out), replacing(out) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for line in last_lines(journal):
            row = flat(line.document)
            writer.writerow([_cell(row.get(name)) for name in columns])
        text.detach()


def _cell(value: Any) -> object:
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, list | dict | bool):
        return utf8(json.dumps(value, ensure_ascii=False))
    return value


def make_metadata(journal: Path, out: Path, run: str, revision: str) -> None:
    """``metadata.jsonl`` as ``imagefolder`` reads it: what this run has described, by file name.

    Raises ConfigError for a picture that is not in the folder.
    """
    with full(out), replacing(out) as file:
        for line in last_lines(journal, run):
            if not line.failed:
                row = {"file_name": _inside(line, out.parent), "text": line.document["text"]}
                more = {name: each for name, each in line.document.items() if name not in FIELDS}
                text = json.dumps({**row, **more}, ensure_ascii=False)
                file.write(utf8(text).encode() + b"\n")


def _inside(line: Line, folder: Path) -> str:
    """The picture's path from the folder; raises ConfigError where it is elsewhere."""
    source = str(line.document.get("source") or "")
    name = os.path.relpath(source, folder.absolute()) if source else ".."
    if name.startswith(".."):
        raise ConfigError(
            f"{line.key} is not a file in {folder or '.'}",
            hint="metadata.jsonl names pictures beside it; write to another .jsonl",
        )
    return Path(name).as_posix()
