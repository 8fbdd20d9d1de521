"""A batch for ``for``, for ``async for``, and for signals."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from internvl_modal.batch.asking import Exchange
from internvl_modal.batch.engine import Run
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.progress import Progress
from internvl_modal.batch.sources import Images
from internvl_modal.errors import InternVLError
from internvl_modal.flows import Core
from internvl_modal.transport import AsyncTransport, Retry, Send, Sent, Transport

T = TypeVar("T")


async def stream(
    core: Core, exchange: Exchange, retry: Retry, images: Images, job: Job
) -> AsyncIterator[Outcome]:
    """Outcomes, driven by the caller's event loop."""
    run = Run(core, exchange, retry, images, job)
    batch = _UnderWay(run, asyncio.get_running_loop(), asyncio.Event())
    with _signals_wait(batch):
        try:
            while taken := await run.take():
                for outcome in taken:
                    yield outcome
        except InternVLError:
            await batch.delivered()  # rather than this error, where others are still ending
            raise
        finally:
            await run.close()


def iterate(
    core: Core, own: Transport | None, retry: Retry, images: Images, job: Job
) -> Generator[Outcome, None, Progress]:
    """Outcomes, driven by an event loop in a thread of its own, so that any caller can wait.

    At the end it returns the last numbers.

    ``own``: what to send with, in threads, where the user brought an HTTP client.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="internvl-batch", daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def begin() -> tuple[Run, AsyncTransport]:
        transport = AsyncTransport(None, retry)
        exchange = transport.send if own is None else _in_threads(own)
        return Run(core, exchange, retry, images, job), transport

    async def finish() -> None:
        await run.close()
        await transport.close()

    try:
        run, transport = call(begin())
        try:
            core.start()  # here, where Ctrl-C ends it as it ends any call
            with _signals_wait(_UnderWay(run, loop)):
                while taken := call(run.take()):
                    yield from taken
            return run.progress
        finally:
            if not sys.is_finalizing():
                call(finish())
    finally:
        if not sys.is_finalizing():  # when the thread runs no more
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def _in_threads(transport: Transport) -> Exchange:
    async def send(step: Send[Any]) -> Sent[Any]:
        alone = anyio.CapacityLimiter(1)  # the common limiter would let 40 through
        return await anyio.to_thread.run_sync(transport.send, step, limiter=alone)

    return send


@dataclass(eq=False)
class _UnderWay:
    """A batch and its event loop; ``here``, if that runs in the main thread."""

    run: Run
    loop: asyncio.AbstractEventLoop
    here: asyncio.Event | None = None
    """Set when the signal that stopped it has been delivered."""
    told: bool = False

    async def delivered(self) -> None:
        """Wait for the signal that stopped this batch, if one did."""
        if self.told and self.here is not None:
            await self.here.wait()


_under_way: list[_UnderWay] = []
"""Batches of the main thread that no signal has stopped."""
_before: dict[int, Any] = {}
"""Handlers of signals that were there before the first of them."""
_DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


@contextmanager
def _signals_wait(batch: _UnderWay) -> Iterator[None]:
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
