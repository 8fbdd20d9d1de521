"""Damaged data sets of every kind: what is put in is described or named by an error."""

from __future__ import annotations

import os
import random
from pathlib import Path

import datasets
import pytest

import internvl_modal as ivl
from tests.batch.conftest import Fast
from tests.batch.fault_sources import SOURCES, Case
from tests.batch.faults import balance, run
from tests.batch.sources import png

SETS = int(os.environ.get("INTERNVL_MODAL_TEST_DAMAGED", "160"))
"""Damaged data sets; `python -m tests.batch.faults 2000` prints the books of more."""


@pytest.fixture(autouse=True)
def quiet_data_sets() -> None:
    datasets.disable_progress_bars()


def check(url: str, count: int) -> None:
    total = run(url, count)
    assert total.keys() == {make.__name__ for make in SOURCES}
    for books in total.values():
        assert books.silent == []
        assert books.damaged > books.sets // 3
        assert books.inputs == books.described + books.failed + books.behind
        assert 0 < books.described < books.inputs


def test_the_books_balance(server: Fast) -> None:
    check(server.url, SETS)


def test_silence_is_noticed(client: ivl.Client) -> None:
    """By the books, of which another test says that they balance."""
    given = [("a", png(1)), ("c", png(3)), ("d", b"no picture")]
    books = balance(client, Case(given, ["a", "b", "d"]), set(), None)
    assert books.silent == ["c is none of the inputs", "b"]
    assert (books.described, books.failed, books.behind) == (1, 1, 0)
    for make in SOURCES:
        top = Path(make.__name__)
        top.mkdir()
        case = make(top, random.Random(3))
        case.wanted.append("lost")
        case.spans = {**case.spans, "lost": (0, 0)} if case.spans else {}
        found = balance(client, case, set(), None)
        assert "lost" in found.silent or make.__name__ == "raising"
