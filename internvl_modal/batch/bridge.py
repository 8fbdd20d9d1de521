"""A batch for ``for``, for ``async for``, and for signals."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from internvl_modal.batch.asking import Exchange
from internvl_modal.batch.engine import Run
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sources import Images
from internvl_modal.flows import Core
from internvl_modal.transport import AsyncTransport, Retry, Send, Sent, Transport

T = TypeVar("T")


async def stream(
    core: Core, exchange: Exchange, retry: Retry, images: Images, job: Job
) -> AsyncIterator[Outcome]:
    """Outcomes, driven by the caller's event loop."""
    run = Run(core, exchange, retry, images, job)
    loop = asyncio.get_running_loop()
    pending: list[asyncio.Task[None]] = []

    async def end(then: Callable[[], None]) -> None:
        await run.stop()
        then()

    def begin(then: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(lambda: pending.append(loop.create_task(end(then))))

    with _signals_wait(begin):
        try:
            while taken := await run.take():
                for outcome in taken:
                    yield outcome
        finally:
            await run.close()


def iterate(
    core: Core, own: Transport | None, retry: Retry, images: Images, job: Job
) -> Iterator[Outcome]:
    """Outcomes, driven by an event loop in a thread of its own, so that any caller can wait.

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

    def end(then: Callable[[], None]) -> None:
        call(run.stop())
        then()

    try:
        run, transport = call(begin())
        try:
            with _signals_wait(end):
                while taken := call(run.take()):
                    yield from taken
        finally:
            call(finish())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _in_threads(transport: Transport) -> Exchange:
    async def send(step: Send[Any]) -> Sent[Any]:
        alone = anyio.CapacityLimiter(1)  # the common limiter would let 40 through
        return await anyio.to_thread.run_sync(transport.send, step, limiter=alone)

    return send


@contextmanager
def _signals_wait(end: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Hold back the first SIGINT or SIGTERM until ``end`` calls what delivers it.

    A second one is delivered at once. Python has signal handlers in its main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            number, handler = before.popitem()
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        print(  # noqa: T201 - whoever pressed Ctrl-C waits for a word
            "stopping: finishing what is under way; the same call goes on from here later",
            file=sys.stderr,
            flush=True,
        )
        end(lambda: signal.raise_signal(number))

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None and handler != signal.SIG_IGN:
            before[number] = handler
            signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
