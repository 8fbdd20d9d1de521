"""An answer piece by piece: what ``stream`` and ``stream_chat`` return."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from internvl_modal.errors import ConfigError
from internvl_modal.flows.core import Opened
from internvl_modal.flows.steps import Flow
from internvl_modal.schema.results import Description, Timings
from internvl_modal.transport.aio import AsyncTransport
from internvl_modal.transport.sync import Transport


class _Collected:
    """One pass over a stream, and what it added up to."""

    def __init__(self, flow: Flow[Opened]) -> None:
        self._flow: Flow[Opened] | None = flow
        self._description: Description | None = None

    @property
    def description(self) -> Description:
        """The whole answer; raises ConfigError until the stream has been read to its end."""
        if self._description is None:
            raise ConfigError(
                "the stream has not been read to its end", hint="iterate over it first"
            )
        return self._description

    def _take(self) -> Flow[Opened]:
        flow, self._flow = self._flow, None
        if flow is None:
            raise ConfigError(
                "the stream has been begun already: it is read once",
                hint="ask again, or keep iter(stream) to go on after a break",
            )
        return flow

    def _finish(self, opened: Opened, first: float | None, attempts: int) -> None:
        timings = Timings(
            prepare=opened.prepared,
            first_token=None if first is None else first - opened.begun,
            total=time.monotonic() - opened.begun,
            attempts=attempts,
        )
        found = opened.collected.finish()
        self._description = found.model_copy(update={"timings": timings})


class Stream(_Collected):
    """Pieces of text as they come; ``.description`` afterwards."""

    def __init__(
        self, run: Callable[[Flow[Opened]], Opened], transport: Transport, flow: Flow[Opened]
    ) -> None:
        super().__init__(flow)
        self._run, self._transport = run, transport

    def __iter__(self) -> Iterator[str]:
        opened = self._run(self._take())
        first = None
        with self._transport.stream(opened.step) as (begun, chunks):
            opened.collected.request_id = begun.value
            for chunk in chunks:
                for text in opened.collected.feed(chunk):
                    first = first or time.monotonic()
                    yield text
                if opened.collected.done:
                    break  # the server may keep the connection open
        self._finish(opened, first, begun.attempts)


class AsyncStream(_Collected):
    """Pieces of text as they come, for ``async for``; ``.description`` afterwards."""

    def __init__(
        self,
        run: Callable[[Flow[Opened]], Awaitable[Opened]],
        transport: AsyncTransport,
        flow: Flow[Opened],
    ) -> None:
        super().__init__(flow)
        self._run, self._transport = run, transport

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        opened = await self._run(self._take())
        first = None
        async with self._transport.stream(opened.step) as (begun, chunks):
            opened.collected.request_id = begun.value
            async for chunk in chunks:
                for text in opened.collected.feed(chunk):
                    first = first or time.monotonic()
                    yield text
                if opened.collected.done:
                    break  # the server may keep the connection open
        self._finish(opened, first, begun.attempts)
