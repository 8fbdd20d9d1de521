"""Parquet in parts: a folder that any reader of data sets takes as one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.signed_urls import without_signature
from internvl_modal.batch.sinks.base import SeenKeys
from internvl_modal.batch.sinks.files import check_regular, full, replacing
from internvl_modal.batch.sinks.jsonl import JsonLines
from internvl_modal.batch.sinks.lines import Line, read_lines
from internvl_modal.batch.sinks.rows import READ, flat, schema, utf8
from internvl_modal.errors import ConfigError, MissingExtraError

PART_ROWS = 10_000
JOURNAL = ".journal.jsonl"


class Parquet(SeenKeys):
    """Rows go to a journal first, so that a killed process loses none, and then into a part."""

    def __init__(self, folder: Path, *, resume: bool, retry_errors: bool) -> None:
        super().__init__()
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet") from error
        self._arrow, self._parquet = arrow, parquet
        self._folder, self._resume, self._retry = folder, resume, retry_errors
        self._journal_path = folder / JOURNAL
        self._journal = JsonLines(
            self._journal_path, resume=resume, retry_errors=retry_errors, named=False
        )
        self._rows = 0

    def open(self, run: str) -> None:
        """Read the keys of the parts, then those of the journal."""
        self._journal.open(run)
        with full(self._folder):
            for part in self._parts():
                self._read(part, run)
            left = list(read_lines(self._journal_path))
            if left and self._is_in_parts(left[0]):  # killed before the journal was cleared
                self._journal.clear()
                left = []
        for line in left:
            if self._resume and line.run == run:
                self.note(line.key, failed=line.failed)
        self._rows = len(left)

    def note(self, key: str, *, failed: bool = False) -> None:
        """Keep ``key``, as a part would hold it."""
        super().note(without_signature(utf8(key)), failed=failed)

    def claim(self, key: str) -> bool:
        """Whether ``key`` was seen, as a part would hold it."""
        return super().claim(utf8(key))

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
        rows = [flat(line.document) for line in read_lines(self._journal_path)]
        parts = self._parts()
        number = int(parts[-1].stem.partition("-")[2]) + 1 if parts else 0
        table = self._arrow.Table.from_pylist(rows, schema=schema(self._arrow))
        self._replace(self._folder / f"part-{number:05}.parquet", table)
        self._journal.clear()
        self._rows = 0

    def _replace(self, path: Path, table: Any) -> None:
        with full(path), replacing(path) as file:
            self._parquet.write_table(table, file, compression="zstd")

    def _read(self, part: Path, run: str) -> None:
        """Note the keys of this run, if it is to be resumed; raises ConfigError for other parts."""
        stale = 0
        check_regular(part)
        try:
            opened = self._parquet.ParquetFile(part)
        except ValueError as error:
            raise _foreign(part) from error
        with opened as file:
            if not set(READ) <= set(file.schema_arrow.names):
                raise _foreign(part)
            for batch in file.iter_batches(columns=READ) if self._resume else ():
                for row in batch.to_pylist():
                    failed = row["run"] == run and row["error_type"] is not None
                    stale += failed
                    if row["run"] == run and not (failed and self._retry):
                        self.note(row["key"], failed=failed)
        if stale and self._retry:
            self._forget_failures(part, run)

    def _forget_failures(self, part: Path, run: str) -> None:
        """Write a part anew without this run's failures, which get a row of their own again."""
        from pyarrow import compute

        table = self._parquet.read_table(part)
        failed = compute.and_(
            compute.equal(table["run"], run), compute.is_valid(table["error_type"])
        )
        self._replace(part, table.filter(compute.invert(failed)))

    def _is_in_parts(self, line: Line) -> bool:
        """Whether a part holds the journal's first line: parts are made of whole journals."""
        wanted = [("key", "=", utf8(str(line.document["key"]))), ("run", "=", line.run)]
        return any(
            self._parquet.read_table(part, columns=["key"], filters=wanted).num_rows
            for part in self._parts()[-1:]
        )


def _foreign(part: Path) -> ConfigError:
    return ConfigError(f"{part} is not one of a batch", hint="choose another out=, or remove it")
