"""Parquet: paths or whole pictures, row group by row group.

Data sets on the Hub hold the pictures themselves in it, a hundred MB a row group. A damaged group
is common after a broken download, and the groups after it are fine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.manifests import table_of
from internvl_modal.batch.sources.places import Place
from internvl_modal.batch.sources.rows import Row, Table
from internvl_modal.batch.sources.unreadable import Unreadable
from internvl_modal.errors import ConfigError, InternVLError, MissingExtraError

ROWS = 64
"""Read at once: they may hold whole pictures."""


def read_parquet(place: Place, choice: Choice) -> Iterator[Any]:
    """Rows; a row group that is damaged is one failure that says which rows it held."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    table = table_of(place, choice)
    with place.open() as file:
        try:
            opened = parquet.ParquetFile(file, page_checksum_verification=True)
            groups = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
            names = list(opened.schema_arrow.names)
        except Exception as error:
            raise ConfigError(
                f"{place.name}: {_words(error)}", hint="is it a Parquet file, and whole?"
            ) from error
        if sum(groups) != opened.metadata.num_rows:
            raise ConfigError(f"{place.name}: its row groups do not add up", hint="make it again")
        columns = table.wanted(names)
        first = 0
        for group, count in enumerate(groups):
            yield from _pairs(opened, group, (first, count), columns, table, place)
            first += count


def _pairs(
    opened: Any,
    group: int,
    rows: tuple[int, int],
    columns: list[str],
    table: Table,
    place: Place,
) -> Iterator[Any]:
    first, count = rows
    # Rows that were read before the damage are given; only the rest of the group is lost.
    number, reason = first, "it ends before"
    try:
        for row in _rows(opened, group, columns):
            yield table.pair(row, number)
            number += 1
    except (InternVLError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - pyarrow raises anything for what is damaged
        reason = _words(error)
    if number < first + count:
        yield _lost(place, group, (number, first + count - 1), reason)


def _rows(opened: Any, group: int, columns: list[str]) -> Iterator[Row]:
    for batch in opened.iter_batches(ROWS, row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _lost(place: Place, group: int, rows: tuple[int, int], reason: str) -> tuple[str, Unreadable]:
    name = f"{place.name}#{rows[0]}-{rows[1]}"
    words = f"rows {rows[0]} to {rows[1]} (row group {group}) cannot be read: {reason}"
    return name, Unreadable(name, words, hint="make or download the file again")


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
