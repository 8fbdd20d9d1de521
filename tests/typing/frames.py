"""Data sets and frames as users give them; ``Images`` must name each."""

from collections.abc import Iterator
from typing import Any

import datasets  # type: ignore[import-untyped]
import pandas  # type: ignore[import-untyped]
import polars
import pyarrow  # type: ignore[import-untyped]

import internvl_modal as ivl


def stored(
    client: ivl.Client,
    data_set: datasets.Dataset,
    stream: datasets.IterableDataset,
    table: pyarrow.Table,
) -> Iterator[ivl.Outcome]:
    yield from client.describe_many(data_set, column="photo", key="id")
    yield from client.describe_many(stream)
    yield from client.describe_many(table)


def framed(
    client: ivl.Client, frame: pandas.DataFrame, other: polars.DataFrame
) -> Iterator[ivl.Outcome]:
    yield from client.describe_many(frame)
    yield from client.describe_many(other)
    yield from client.describe_many(other["path"])


def listed(client: ivl.Client, rows: list[dict[str, Any]]) -> Iterator[ivl.Outcome]:
    yield from client.describe_many(rows)
    yield from client.describe_many([{"image": "a.png", "id": 1}])


async def awaited(client: ivl.AsyncClient, other: polars.DataFrame) -> None:
    async for outcome in client.describe_many(other):
        print(outcome.key)
