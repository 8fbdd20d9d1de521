"""The server that answers badly, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import internvl_modal as ivl
from tests.served import Served, starting

QUICK = ivl.Retry(attempts=3, initial=0.01)


class Bad(Served):
    """Answers badly in the ways that it is told."""

    module = "tests.captions.server"

    def log(self) -> list[dict[str, Any]]:
        """Every request since the last time."""
        found: list[dict[str, Any]] = self.ask("/log")
        return found


@pytest.fixture
def bad() -> Iterator[Callable[..., Bad]]:
    yield from starting(Bad)
