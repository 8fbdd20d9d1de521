"""Parquet in parts: a folder that any reader of data sets takes as one table.

A Parquet file cannot be appended to and is useless until its footer is written. So rows wait in a
journal, which a kill leaves whole, and become a part when there are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sinks.base import SeenKeys
from internvl_modal.batch.sinks.files import check_regular, full, replacing
from internvl_modal.batch.sinks.jsonl import JsonLines
from internvl_modal.batch.sinks.lines import Line, read_lines
from internvl_modal.batch.sinks.parts import ParquetFormat
from internvl_modal.batch.sinks.rows import utf8

PART_ROWS = 10_000
"""Some MB of text: readers like few parts, and a part is held in memory while it is written."""
JOURNAL = ".journal.jsonl"


class Parquet(SeenKeys):
    """Rows go to a journal first, so that a killed process loses none, and then into a part."""

    def __init__(
        self,
        folder: Path,
        *,
        resume: bool,
        retry_errors: bool,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._format = ParquetFormat(columns)
        self._folder, self._resume, self._retry = folder, resume, retry_errors
        self._journal_path = folder / JOURNAL
        self._journal = JsonLines(
            self._journal_path, resume=resume, retry_errors=retry_errors, named=False
        )
        self._journal.share(self)
        self._rows = 0

    def open(self, run: str) -> None:
        """Read the keys of the parts, then those of the journal."""
        self._journal.open(run)
        with full(self._folder):
            for part in self._parts():
                self._read(part, run)
            left = list(read_lines(self._journal_path))
            # The part is renamed into place before the journal is cleared; a kill between the two
            # leaves both.
            if left and self._is_in_parts(left[0]):  # killed before the journal was cleared
                self._journal.clear()
                left = []
        for line in left:
            if self._resume and line.run == run:
                self.note(
                    line.identity, failed=line.failed, earlier=line.earlier, content=line.content
                )
        self._rows = len(left)

    def note(
        self, key: str, *, failed: bool = False, earlier: bool = False, content: str = ""
    ) -> None:
        """Keep ``key``, as a part would hold it."""
        super().note(utf8(key), failed=failed, earlier=earlier, content=content)

    def other(self, key: str, content: str) -> str:
        """What ``key``, as a part would hold it, was noted with, if not with ``content``."""
        return super().other(utf8(key), content)

    def claim(self, key: str, former: str | None = None) -> bool:
        """Whether ``key`` was seen, as a part would hold it."""
        return super().claim(utf8(key), former and utf8(former))

    def has_failed(self, key: str) -> bool:
        """Whether ``key`` was noted as failed, as a part would hold it."""
        return super().has_failed(utf8(key))

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep the rows; make a part of them when there are enough."""
        if outcomes and not self._resume:
            with full(self._folder):
                for part in self._parts():
                    part.unlink()
            self._rows, self._resume = 0, True
        self._journal.write(outcomes)
        self._rows += len(outcomes)
        if self._rows >= PART_ROWS:
            self._make_part()

    def close(self) -> None:
        """Make a part of what is left."""
        try:
            if self._rows:
                self._make_part()
        finally:
            self._journal.close()

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def _make_part(self) -> None:
        documents = [line.document for line in read_lines(self._journal_path)]
        parts = self._parts()
        # After the last one there is, also where some before it were removed: a name is never used
        # twice.
        number = int(parts[-1].stem.partition("-")[2]) + 1 if parts else 0
        self._replace(self._folder / f"part-{number:05}.parquet", self._format.encode(documents))
        self._journal.clear()
        self._rows = 0

    def _replace(self, path: Path, data: bytes) -> None:
        with full(path), replacing(path) as file:
            file.write(data)

    def _read(self, part: Path, run: str) -> None:
        """Note the keys of this run, if it is to be resumed; raises ConfigError for other parts.

        What failed is left out of the part where it is tried again: it gets a row of its own.
        """
        check_regular(part)
        with part.open("rb") as file:
            known = self._format.read(file, str(part))
            if not self._resume:
                next(known, None)
            elif self.note_known(known, run, retry=self._retry):
                file.seek(0)
                self._replace(part, self._format.without_failures(file, run))

    def _is_in_parts(self, line: Line) -> bool:
        """Whether a part holds the journal's first line: parts are made of whole journals."""
        for part in self._parts()[-1:]:
            with part.open("rb") as file:
                wanted = (utf8(line.key), line.run)
                known = self._format.read(file, str(part))
                return any((each.key, each.run) == wanted for each in known)
        return False
