"""What a part holds: pure formats, JSON lines and Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from internvl_modal.batch.signed_urls import without_signature
from internvl_modal.batch.sinks.base import Known
from internvl_modal.batch.sinks.lines import Line, encode, line_of
from internvl_modal.batch.sinks.rows import READ, answer_columns, flat, schema
from internvl_modal.errors import ConfigError, MissingExtraError


class Format(Protocol):
    """Lines as bytes, and back.

    Pure: files and addresses are the sinks' business.
    """

    suffix: str

    def encode(self, documents: Sequence[dict[str, object]]) -> bytes:
        """A whole part."""
        ...

    def read(self, file: BinaryIO, name: str) -> Iterator[Known]:
        """What is in it; raises ConfigError for what no batch wrote."""
        ...

    def without_failures(self, file: BinaryIO, run: str) -> bytes:
        """The part without what failed in ``run``."""
        ...


def format_of(suffix: str, columns: Mapping[str, str]) -> Format:
    """The format of names that end so; ``columns`` are those of answers."""
    return ParquetFormat(columns) if suffix == ".parquet" else LinesFormat()


class LinesFormat:
    """JSON lines."""

    suffix = ".jsonl"

    def encode(self, documents: Sequence[dict[str, object]]) -> bytes:
        """A whole part."""
        return b"".join(map(encode, documents))

    def read(self, file: BinaryIO, name: str) -> Iterator[Known]:
        """What is in it; raises ConfigError for what no batch wrote."""
        for line in _lines(file, name):
            yield Known(line.key, line.run, line.failed, line.earlier, line.content, line.asked)

    def without_failures(self, file: BinaryIO, run: str) -> bytes:
        """The part without what failed in ``run``."""
        lines = _lines(file, "a part")
        return b"".join(line.raw for line in lines if not (line.failed and line.run == run))


def _lines(file: BinaryIO, name: str) -> Iterator[Line]:
    for number, raw in enumerate(file, 1):
        if raw.endswith(b"\n"):  # one that was cut is none
            yield line_of(raw, number, name)


class ParquetFormat:
    """Parquet."""

    suffix = ".parquet"

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        """``columns``: those of answers, and their kinds; see ``schemas.kind``."""
        self._columns = columns or {}
        try:
            import pyarrow as arrow
            from pyarrow import compute, parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet") from error
        self._arrow, self._compute, self._parquet = arrow, compute, parquet

    def encode(self, documents: Sequence[dict[str, object]]) -> bytes:
        """A whole part."""
        rows = [flat(document) for document in documents]
        more = answer_columns(rows, self._columns)
        fields = schema(self._arrow, more)
        return self._encoded(self._arrow.Table.from_pylist(rows, schema=fields))

    def read(self, file: BinaryIO, name: str) -> Iterator[Known]:
        """What is in it; raises ConfigError for what no batch wrote."""
        try:
            opened = self._parquet.ParquetFile(file)
            names = opened.schema_arrow.names
            # Somebody else's Parquet in that folder must not be taken for ours, or written to.
            if not set(READ) <= set(names):
                raise ValueError("other columns")
            later = {"content", "asked"} & set(names)
            for batch in opened.iter_batches(columns=[*READ, *later]):
                for row in batch.to_pylist():
                    failed = row["error_type"] is not None
                    earlier = not failed and "seen" not in names
                    key, content = without_signature(row["key"]), row.get("content") or ""
                    yield Known(key, row["run"], failed, earlier, content, row.get("asked") or "")
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"{name} is not one of a batch", hint="choose another out=, or remove it"
            ) from error

    def without_failures(self, file: BinaryIO, run: str) -> bytes:
        """The part without what failed in ``run``."""
        table = self._parquet.read_table(file)
        failed = self._compute.and_(
            self._compute.equal(table["run"], run), self._compute.is_valid(table["error_type"])
        )
        return self._encoded(table.filter(self._compute.invert(failed)))

    def _encoded(self, table: Any) -> bytes:
        held = io.BytesIO()
        self._parquet.write_table(table, held, compression="zstd")
        return held.getvalue()
