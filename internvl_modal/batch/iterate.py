"""A batch for ``for``, for ``async for``, and for signals."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread

from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.pipeline import Run
from internvl_modal.batch.progress import BatchProgress
from internvl_modal.batch.requests import Perform
from internvl_modal.batch.signals import UnderWay, signals_wait
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.errors import InternVLError
from internvl_modal.flows.core import Core
from internvl_modal.transport.aio import AsyncTransport
from internvl_modal.transport.exchange import Exchange, Exchanged
from internvl_modal.transport.retry import Retry
from internvl_modal.transport.sync import Transport

T = TypeVar("T")


async def stream(
    core: Core, exchange: Perform, retry: Retry, images: Images, job: Job
) -> AsyncIterator[Outcome]:
    """Outcomes, driven by the caller's event loop."""
    run = Run(core, exchange, retry, images, job)
    batch = UnderWay(run, asyncio.get_running_loop(), asyncio.Event())
    with signals_wait(batch):
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
) -> Generator[Outcome, None, BatchProgress]:
    """Outcomes, driven by an event loop in a thread of its own, so that any caller can wait.

    At the end it returns the last numbers.

    ``own``: what to send with, in threads, where the user brought an HTTP client.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="internvl-batch", daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        result, ending = asyncio.run_coroutine_threadsafe(_apart(work), loop).result()
        if ending is not None:
            raise ending
        return cast(T, result)

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
            with signals_wait(UnderWay(run, loop)):
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


async def _apart(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """The result, or what would end the event loop if a task raised it."""
    try:
        return await work, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


def _in_threads(transport: Transport) -> Perform:
    async def send(step: Exchange[Any]) -> Exchanged[Any]:
        alone = anyio.CapacityLimiter(1)  # the common limiter would let 40 through
        return await anyio.to_thread.run_sync(transport.send, step, limiter=alone)

    return send
