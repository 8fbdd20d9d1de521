"""Short blocking functions share a thread; a slow one holds nobody up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from internvl_modal.batch import bundles
from internvl_modal.batch.bundles import HOLD, MOST, Bundler


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may take its time to begin, on a machine that has other work."""
    monkeypatch.setattr(bundles, "PATIENCE", 60.0)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


async def called(bundler: Bundler, *functions: Callable[[], Any]) -> list[Any]:
    """What each returns or raises, all asked for at once."""
    return await asyncio.gather(*map(bundler.call, functions), return_exceptions=True)


@pytest.mark.usefixtures("patient")
def test_what_is_asked_for_at_once_goes_to_one_thread(threads: ThreadPoolExecutor) -> None:
    found = asyncio.run(called(Bundler(threads), *[threading.get_ident] * MOST))
    assert len(set(found)) == 1
    assert found[0] != threading.get_ident()


def test_more_than_go_together_come_all_the_same(threads: ThreadPoolExecutor) -> None:
    numbers = range(5 * MOST + 1)
    work: list[Callable[[], int]] = [lambda number=number: number for number in numbers]  # type: ignore[misc]
    assert asyncio.run(called(Bundler(threads), *work)) == list(numbers)


def test_each_has_its_own_error(threads: ThreadPoolExecutor) -> None:
    def stop() -> None:
        raise StopIteration

    def cancel() -> None:
        raise asyncio.CancelledError

    found = asyncio.run(
        called(Bundler(threads), lambda: 1, lambda: 1 // 0, stop, cancel, lambda: 2)
    )
    assert [type(each) for each in found] == [
        int, ZeroDivisionError, RuntimeError, RuntimeError, int,
    ]  # fmt: skip


def test_what_ends_a_program_is_raised_where_it_is_awaited(threads: ThreadPoolExecutor) -> None:
    async def main() -> None:
        work = Bundler(threads).call(lambda: exec("raise SystemExit(3)"))
        with pytest.raises(SystemExit):
            await work

    asyncio.run(main())


def test_a_slow_one_holds_nobody_up(threads: ThreadPoolExecutor) -> None:
    """Neither the event loop nor what was asked for with it, nor what comes next."""
    free = threading.Event()

    async def main() -> None:
        bundler = Bundler(threads)
        slow = asyncio.ensure_future(bundler.call(lambda: free.wait(60)))
        others = [asyncio.ensure_future(bundler.call(lambda: 1)) for _ in range(MOST)]
        assert await asyncio.wait_for(asyncio.gather(*others), 30) == [1] * MOST
        for _ in range(HOLD + 1):
            assert await asyncio.wait_for(bundler.call(lambda: 2), 30) == 2
        assert not slow.done()
        free.set()
        assert await asyncio.wait_for(slow, 30)

    asyncio.run(main())


def test_slow_ones_run_side_by_side_and_short_ones_together_again(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads meet at a barrier, which one by itself never passes."""
    meeting = threading.Barrier(4)

    async def main() -> None:
        bundler = Bundler(threads)
        met = await asyncio.wait_for(called(bundler, *[lambda: meeting.wait(60)] * 4), 60)
        assert sorted(met) == [0, 1, 2, 3]
        monkeypatch.setattr(bundles, "PATIENCE", 60.0)
        await called(bundler, *[lambda: None] * HOLD)
        found = await called(bundler, *[threading.get_ident] * MOST)
        assert len(set(found)) == 1

    asyncio.run(main())


def test_what_is_cancelled_is_not_begun(threads: ThreadPoolExecutor) -> None:
    begun: list[int] = []

    async def main() -> None:
        bundler = Bundler(threads)
        first, second = (
            asyncio.ensure_future(bundler.call(lambda n=n: begun.append(n))) for n in (1, 2)
        )  # type: ignore[misc]
        first.cancel()
        await second
        assert first.cancelled()

    asyncio.run(main())
    assert begun == [2]


def test_what_is_cancelled_while_it_runs_is_dropped(threads: ThreadPoolExecutor) -> None:
    async def main() -> None:
        bundler = Bundler(threads)
        slow = asyncio.ensure_future(bundler.call(lambda: time.sleep(0.05)))
        await asyncio.sleep(0.01)
        slow.cancel()
        await asyncio.sleep(0.1)
        assert slow.cancelled()
        assert await bundler.call(lambda: 3) == 3

    asyncio.run(main())


def test_threads_that_take_nothing_more_are_an_error(threads: ThreadPoolExecutor) -> None:
    threads.shutdown()

    async def main() -> None:
        bundler = Bundler(threads)
        for _ in range(2):  # together, and by itself
            with pytest.raises(RuntimeError, match="shutdown"):
                await asyncio.wait_for(bundler.call(lambda: 1), 30)

    asyncio.run(main())
