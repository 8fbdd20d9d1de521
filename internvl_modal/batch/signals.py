"""Ctrl-C and SIGTERM in a batch: stop reading, finish what is under way, say how to go on.

Ctrl-C in the middle of a batch would lose the answers that are under way and paid for, and SIGTERM
is how containers and schedulers say that there are seconds left. The first signal stops the reading
and waits for what is under way; then it does what it always did, so a program that handles it sees
no difference.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from internvl_modal.batch.pipeline import Run


@dataclass(eq=False)
class UnderWay:
    """A batch and its event loop; ``here``, if that runs in the main thread.

    Compared by identity: two batches are never the same.
    """

    run: Run
    loop: asyncio.AbstractEventLoop
    here: asyncio.Event | None = None
    """Set when the signal that stopped it has been delivered."""
    told: bool = False

    async def delivered(self) -> None:
        """Wait for the signal that stopped this batch, if one did."""
        if self.told and self.here is not None:
            await self.here.wait()


_under_way: list[UnderWay] = []
"""Batches of the main thread that no signal has stopped."""


_before: dict[int, Any] = {}
"""Handlers of signals that were there before the first of them."""


_DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


@contextmanager
def signals_wait(batch: UnderWay) -> Iterator[None]:
    """Hold back the first SIGINT or SIGTERM until every batch under way has ended.

    A second one is delivered at once. Python has signal handlers in its main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _before:
        _install()
    _under_way.append(batch)
    try:
        yield
    finally:
        if batch in _under_way:
            _under_way.remove(batch)
        if not _under_way:
            _restore()


def _install() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        # None is a handler that C has set; an ignored signal stays ignored (``nohup``).
        if handler not in (None, signal.SIG_IGN, _handle):
            _before[number] = handler
            signal.signal(number, _handle)


def _restore() -> None:
    """Put the handlers back; where a batch ends in another thread, the next signal does that."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in list(_before.items()):
        signal.signal(number, handler)
        del _before[number]


def _handle(number: int, frame: FrameType | None) -> None:
    """Stop them all, then let the signal do what it would have done."""
    _restore()
    if signal.getsignal(number) == _handle:  # put back by somebody who had found it there
        signal.signal(number, _DEFAULTS[number])
    # A loop that does not run cannot stop anything, and must not be waited for.
    told = [each for each in _under_way if each.loop.is_running()]
    _under_way.clear()
    if told:
        words = "stopping: finishing what is under way"
        if all(each.run.remembers for each in told):
            words += "; the same call goes on from here later"
        with suppress(OSError, RuntimeError, ValueError):  # closed, or in the middle of a print
            print(words, file=sys.stderr, flush=True)  # noqa: T201 - somebody waits for a word
    stops = {}
    for each in told:
        each.told = True
        stops[asyncio.run_coroutine_threadsafe(each.run.stop(), each.loop)] = each.here
    # Batches in other threads' loops can be waited for here; one in this thread's loop would wait
    # for itself, so it is told and raises the signal when it has ended.
    wait([stop for stop, here in stops.items() if here is None])
    left = {stop: here for stop, here in stops.items() if here is not None}

    def stopped(stop: Future[None]) -> None:
        ended.append(left[stop])
        if len(ended) == len(left):
            signal.raise_signal(number)
            for here in ended:
                here.set()

    ended: list[asyncio.Event] = []
    for stop in left:
        stop.add_done_callback(stopped)
    if not left:
        signal.raise_signal(number)
