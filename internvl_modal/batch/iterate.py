"""A batch for ``for`` and for ``async for``: what ``describe_many`` returns.

A blocking caller drives the batch by asking for outcomes, and its work goes on meanwhile in a loop
of its own: reading, preparing, sending and writing do not stop when the caller does something slow
with an outcome, but for the window of what is done and not taken.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self

from internvl_modal._utils.lazy_module import LazyModule
from internvl_modal._utils.loop_thread import LoopThread
from internvl_modal._utils.short_errors import short_errors
from internvl_modal.batch.notebook import SHOWN, batch_html, kept
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.progress import BatchProgress
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.errors import ConfigError, InternVLError
from internvl_modal.flows.core import Core
from internvl_modal.transport.retry import Retry

if TYPE_CHECKING:
    import httpx

    from internvl_modal.batch import pipeline, requests, signals
    from internvl_modal.transport import aio
else:  # imported where something is described
    httpx = LazyModule("httpx")
    aio = LazyModule("internvl_modal.transport.aio")
    pipeline, requests, signals = (
        LazyModule(f"internvl_modal.batch.{name}") for name in ("pipeline", "requests", "signals")
    )

__all__ = ["AsyncBatch", "Batch"]


@dataclass
class _State:
    """What a batch and the generator that runs it share, so that neither holds the other.

    A generator that its batch holds, and that held its batch, could not be freed by counting.
    """

    run: pipeline.Run | None = None
    last: BatchProgress | None = None
    taken: deque[Outcome] = field(default_factory=lambda: deque(maxlen=SHOWN))
    """The last ones, for a notebook to show."""


class _Numbers:
    """How far a batch is."""

    _state: _State

    @property
    def progress(self) -> BatchProgress:
        """The numbers of this moment; those of its end once it has ended."""
        if self._state.last is not None:
            return self._state.last
        return self._state.run.progress if self._state.run is not None else BatchProgress()

    @property
    def summary(self) -> BatchProgress:
        """The numbers of its end; raises ConfigError before."""
        if self._state.last is None:
            raise ConfigError("the batch has not ended", hint="iterate over it, or close it, first")
        return self._state.last

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.progress}>"

    def _repr_html_(self) -> str:
        """The last pictures with their captions, for notebooks."""
        return batch_html(self._state.taken, self.progress)


@short_errors
class Batch(_Numbers, Iterator[Outcome]):
    """Outcomes as they come; ``progress`` meanwhile, ``summary`` afterwards.

    Close it, or use ``with``, where it may be left before its end. Nothing is sent before the first
    outcome is asked for.

    Iterate once. An error that ends the batch is raised after all outcomes that came before it.

    >>> with client.describe_many("photos/", out="captions.jsonl") as batch:  # doctest: +SKIP
    ...     for outcome in batch:
    ...         print(outcome.key, outcome.text or outcome.error)
    >>> batch.summary.described  # doctest: +SKIP
    """

    def __init__(
        self, core: Core, client: httpx.Client | None, retry: Retry, images: Images, job: Job
    ) -> None:
        self._state = _State()
        self._outcomes = _iterate(self._state, core, client, retry, images, job)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        outcome = next(self._outcomes)
        self._state.taken.append(kept(outcome))
        return outcome

    def close(self) -> None:
        """Give up what is under way; what is done is written already or is now."""
        self._outcomes.close()
        self._state.last = self.progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@short_errors
class AsyncBatch(_Numbers, AsyncIterator[Outcome]):
    """``Batch`` for ``async for`` and ``async with``, in the caller's event loop.

    Of the event loop in which it is first used.
    """

    _after: Callable[[], Awaitable[None]] | None = None

    def __init__(
        self, core: Core, exchange: requests.Perform, retry: Retry, images: Images, job: Job
    ) -> None:
        self._state = _State()
        self._outcomes = _stream(self._state, core, exchange, retry, images, job)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        try:
            outcome = await anext(self._outcomes)
        except BaseException:
            await self._end()
            raise
        self._state.taken.append(kept(outcome))
        return outcome

    async def aclose(self) -> None:
        """Give up what is under way; what is done is written already or is now."""
        await self._outcomes.aclose()
        self._state.last = self.progress
        await self._end()

    def closing(self, after: Callable[[], Awaitable[None]]) -> Self:
        """Have ``after`` called at the end, as where a client was made for this batch alone."""
        self._after = after
        return self

    async def _end(self) -> None:
        after, self._after = self._after, None
        if after is not None:
            await after()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _stream(
    state: _State, core: Core, exchange: requests.Perform, retry: Retry, images: Images, job: Job
) -> AsyncGenerator[Outcome, None]:
    """Outcomes, driven by the caller's event loop."""
    state.run = run = pipeline.Run(core, exchange, retry, images, job)
    batch = signals.UnderWay(run, asyncio.get_running_loop(), asyncio.Event())
    with signals.signals_wait(batch):
        try:
            while taken := await run.take():
                for outcome in taken:
                    yield outcome
        except InternVLError:
            await batch.delivered()  # rather than this error, where others are still ending
            raise
        finally:
            await run.close()
            state.last = run.progress


def _iterate(
    state: _State,
    core: Core,
    client: httpx.Client | None,
    retry: Retry,
    images: Images,
    job: Job,
) -> Generator[Outcome, None, None]:
    """Outcomes, driven by an event loop in a thread of its own, so that any caller can wait.

    ``client``: what to send with, in threads, where the user brought an HTTP client.
    """
    thread = LoopThread("internvl-batch")

    async def begin() -> tuple[pipeline.Run, aio.AsyncTransport]:
        transport = aio.AsyncTransport(client, retry)
        return pipeline.Run(core, transport.send, retry, images, job), transport

    async def finish() -> None:
        await run.close()
        await transport.close()

    try:
        state.run, transport = thread.call(begin())
        run = state.run
        try:
            # In the caller's thread: a first start may download for hours, and a signal reaches it
            # there.
            core.start()  # here, where Ctrl-C ends it as it ends any call
            with signals.signals_wait(signals.UnderWay(run, thread.loop)):
                while taken := thread.call(run.take()):
                    yield from taken
        finally:
            # Also when the generator is collected half-way, in whatever thread that happens.
            thread.finish(finish())
            state.last = run.progress
    finally:
        if not sys.is_finalizing():  # when the thread runs no more
            thread.close()
