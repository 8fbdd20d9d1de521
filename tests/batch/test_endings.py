"""What a caller's own code raises is raised, after what was given before; never a hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import internvl_modal as ivl
from tests.batch.conftest import Fast, lines
from tests.batch.sources import keys, outcomes_of, png


class Stop(BaseException):
    """As pytest.fail() and pytest.skip() raise."""


RAISED = [
    SystemExit("enough"), KeyboardInterrupt(), Stop(), LookupError("mine"), MemoryError(),
    asyncio.CancelledError(), CancelledError(), GeneratorExit(), ivl.ConfigError("mine"),
]  # fmt: skip
anything = pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
pytestmark = pytest.mark.timeout(60)


def same(error: BaseException | None, raised: BaseException) -> bool:
    """Futures make a CancelledError of their own."""
    return error is raised or type(error).__name__ == type(raised).__name__ == "CancelledError"


class Iterating:
    """Raises as it is, where a generator would turn some errors into others."""

    def __init__(self, count: int, raised: BaseException) -> None:
        self.left, self.raised = count, raised

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return self

    def __next__(self) -> tuple[str, bytes]:
        if not self.left:
            raise self.raised
        self.left -= 1
        return f"k{self.left}", png(self.left)


@anything
def test_a_source_that_raises_after_30(client: ivl.Client, raised: BaseException) -> None:
    outcomes, error = outcomes_of(client, Iterating(30, raised), out="out.jsonl")
    assert same(error, raised)
    assert keys(outcomes, ok=True) == {f"k{n}" for n in range(30)}
    assert len(lines(Path("out.jsonl"))) == 30


def test_a_generator_that_exits(client: ivl.Client) -> None:
    def given() -> Iterator[tuple[str, bytes]]:
        yield "k", png()
        sys.exit("enough")

    outcomes, error = outcomes_of(client, given())
    assert isinstance(error, SystemExit)
    assert len(outcomes) == 1


@pytest.mark.parametrize("raised", [e for e in RAISED if not isinstance(e, asyncio.CancelledError)])
def test_an_async_source_that_raises_after_30(server: Fast, raised: BaseException) -> None:
    async def given() -> AsyncIterator[tuple[str, bytes]]:
        for number in range(30):
            yield f"k{number}", png(number)
        raise raised

    seen = []

    async def main() -> BaseException | None:
        async with ivl.AsyncClient(base_url=server.url) as client:
            try:
                async for outcome in client.describe_many(given(), detail=1):
                    seen.append(outcome.key)
            except BaseException as error:  # noqa: BLE001 - that is looked at
                return error
        return None

    assert asyncio.run(main()) is raised
    assert len(seen) == 30


def test_an_async_source_that_is_cancelled(client: ivl.Client) -> None:
    async def given() -> AsyncIterator[tuple[str, bytes]]:
        yield "k", png()
        raise asyncio.CancelledError

    _, error = outcomes_of(client, given())
    assert isinstance(error, ivl.InternVLError)
    assert "was cancelled" in str(error)


@anything
@pytest.mark.parametrize("where", ["out", "progress", "read"])
def test_what_a_callback_or_a_file_raises(
    client: ivl.Client, raised: BaseException, where: str
) -> None:
    def call(*_: object) -> Any:
        raise raised

    class File:
        read = staticmethod(call)

    source: Any = File() if where == "read" else png()
    images = {"k": source, **{f"k{n}": png(n) for n in range(500)}}
    options: dict[str, Any] = {} if where == "read" else {where: call}
    outcomes, error = outcomes_of(client, images, **options)
    ends = SystemExit | KeyboardInterrupt | Stop | GeneratorExit | MemoryError | ivl.ConfigError
    if where == "read" and not isinstance(raised, ends):
        assert error is None
        assert keys(outcomes, ok=False) == {"k"}
    elif where == "read" and isinstance(raised, MemoryError):
        assert isinstance(error, ivl.InternVLError)  # this machine's trouble, in words
        assert "no memory" in str(error)
    elif isinstance(raised, asyncio.CancelledError | CancelledError):
        assert same(error, raised) or same(getattr(error, "__cause__", None), raised)
    else:
        assert error is raised


@pytest.mark.parametrize("how", ["StopIteration", "CancelledError"])
def test_a_file_whose_read_ends_what_reads_it(client: ivl.Client, how: str) -> None:
    class File:
        def read(self, size: int = -1, /) -> bytes:
            raise StopIteration if how == "StopIteration" else asyncio.CancelledError

    outcomes, error = outcomes_of(client, {"k": File(), "l": png()})
    assert error is None
    assert keys(outcomes, ok=False) == {"k"}
    assert how in str(next(each.error for each in outcomes if not each.ok))


def test_the_process_ends(fast: Callable[..., Fast]) -> None:
    """With the exit code that was asked for."""
    code = (
        "import sys, internvl_modal as ivl\n"
        "def given():\n    yield 'k', 'nowhere.png'\n    sys.exit(7)\n"
        f"list(ivl.Client(base_url={fast().url!r}).describe_many(given()))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 7
