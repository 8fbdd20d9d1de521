"""What is told of a batch while it runs, and who listens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from tests.batch.conftest import Fast, lines


@pytest.fixture
def client(fast: Callable[..., Fast]) -> Iterator[ivl.Client]:
    with ivl.Client(base_url=fast().url) as made:
        yield made


def test_a_callback_that_fails_stops_it_and_loses_nothing(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    def broken(_: ivl.BatchProgress) -> None:
        raise LookupError("mine")

    taken: list[str] = []
    many = client.describe_many(pictures(300), out="out.jsonl", progress=broken, detail=1)
    with pytest.raises(LookupError, match="mine"):
        taken.extend(outcome.key for outcome in many)
    assert taken
    assert taken == [line["key"] for line in lines(Path("out.jsonl"))]


@pytest.mark.parametrize("progress", [None, True])
def test_without_a_standard_error_it_is_silent(
    client: ivl.Client,
    pictures: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    progress: bool | None,
) -> None:
    with Path("closed").open("w") as closed:
        pass
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        assert len(list(client.describe_many(pictures(3), progress=progress, detail=1))) == 3


def test_a_callback_gets_the_numbers(client: ivl.Client, pictures: Callable[[int], Path]) -> None:
    told: list[ivl.BatchProgress] = []
    files = [*pictures(20).iterdir(), Path("missing.png")]
    list(client.describe_many(files, progress=told.append, detail=1))
    last = told[-1]
    assert (last.described, last.failed, last.total, last.done) == (20, 1, 21, 21)
    assert last.tokens_per_second > 0
    assert last.usd is None
    assert "21/21 pictures" in str(last)
