"""Tables that other packages hold: datasets, pandas, polars, pyarrow. None of them is imported.

Told by what they can do, since importing pandas to ask would take a second and may not even be
possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from internvl_modal.batch.sources.rows import Row
from internvl_modal.errors import ConfigError

ROWS = 64
"""Turned into Python's objects at once: they may hold whole pictures."""


class DataSet(Protocol):
    """``Dataset`` and ``IterableDataset`` of ``datasets``."""

    @property
    def with_format(self) -> Any:
        """Give rows in another form."""

    @property
    def column_names(self) -> Any:
        """What its columns are called."""


class ArrowTable(Protocol):
    """``Table`` of pyarrow."""

    @property
    def to_batches(self) -> Any:
        """Give some rows at a time."""

    @property
    def column_names(self) -> Any:
        """What its columns are called."""


class PolarsFrame(Protocol):
    """``DataFrame`` of polars."""

    @property
    def iter_rows(self) -> Any:
        """Give row after row."""

    @property
    def columns(self) -> Any:
        """What its columns are called."""


class PandasFrame(Protocol):
    """``DataFrame`` of pandas."""

    @property
    def iloc(self) -> Any:
        """Give rows by their numbers."""

    @property
    def columns(self) -> Any:
        """What its columns are called."""


Frame: TypeAlias = DataSet | ArrowTable | PolarsFrame | PandasFrame
"""By what they can do, which is what type checkers and ``rows_of`` tell them by."""


def rows_of(images: Any) -> Iterator[Row] | None:
    """The rows of such a table, in its order; None for what is none.

    Raises ConfigError for what stands for several tables, or for one that is yet to be computed.
    """
    if isinstance(images, Mapping):
        if hasattr(images, "column_names"):
            splits = ", ".join(map(repr, images))
            raise ConfigError(
                f"a {type(images).__name__} is several data sets",
                hint=f"pass one of its splits: {splits}",
            )
        return None
    if hasattr(images, "with_format") and hasattr(images, "column_names"):
        return _datasets_rows(images)
    if hasattr(images, "to_batches") and hasattr(images, "column_names"):  # pyarrow's
        return (row for batch in images.to_batches(ROWS) for row in batch.to_pylist())
    if hasattr(images, "iter_rows") and hasattr(images, "columns"):  # polars'
        rows: Iterator[Row] = images.iter_rows(named=True, buffer_size=ROWS)
        return rows
    if hasattr(images, "iloc") and hasattr(images, "columns"):  # pandas'
        return _pandas_rows(images)
    # polars' lazy frames: computing one may take hours, and is for its owner to start.
    if hasattr(images, "collect_schema"):
        raise ConfigError(
            f"a {type(images).__name__} is not computed yet", hint="pass its collect()"
        )
    if hasattr(images, "columns"):
        raise ConfigError(
            f"a {type(images).__name__} is not many pictures",
            hint="pass df['path'] or zip(df['id'], df['path'])",
        )
    return None


def _datasets_rows(images: Any) -> Iterator[Row]:
    """Pictures as they are stored: decoding would end at the first damaged one.

    A transform of the caller's own is left to make what it makes.
    """
    if (getattr(images, "format", None) or {}).get("type") == "custom":
        yield from images
        return
    size = ROWS if hasattr(images, "__len__") else 1  # a stream that raises takes its batch along
    for table in images.with_format("arrow").iter(batch_size=size):
        yield from table.to_pylist()


def _pandas_rows(images: Any) -> Iterator[Row]:
    if not images.columns.is_unique:  # a dict would keep the last of them
        twice = ", ".join(map(str, images.columns[images.columns.duplicated()].unique()))
        raise ConfigError(f"a DataFrame has several columns {twice}", hint="rename them")
    for start in range(0, len(images), ROWS):
        yield from images.iloc[start : start + ROWS].to_dict("records")
