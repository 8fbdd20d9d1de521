"""An answer piece by piece: what ``stream`` and ``stream_chat`` return.

A stream is lazy and is read once; what it added up to is checked when it ends, so a picture that
was not seen is raised after the text and not lost with it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from typing_extensions import Self

from internvl_modal._utils.lazy_module import LazyModule
from internvl_modal._utils.short_errors import short_errors
from internvl_modal.errors import ConfigError, EngineError
from internvl_modal.flows.core import Opened
from internvl_modal.flows.spans import ChatSpan
from internvl_modal.flows.steps import Flow
from internvl_modal.schema.results import Description, Timings
from internvl_modal.transport.exchange import Exchanged
from internvl_modal.transport.failures import Translated

if TYPE_CHECKING:
    from internvl_modal.transport import aio, sync
else:  # aiohttp is imported where something is sent
    aio, sync = (LazyModule(f"internvl_modal.transport.{name}") for name in ("aio", "sync"))

Run: TypeAlias = Callable[[Flow[Opened]], Opened]
ARun: TypeAlias = Callable[[Flow[Opened]], Awaitable[Opened]]


class _Collected:
    """One pass over a stream, and what it added up to."""

    def __init__(self, flow: Flow[Opened]) -> None:
        self._flow: Flow[Opened] | None = flow
        self._opened: Opened | None = None
        self._description: Description | None = None
        self._first: float | None = None
        self._span: ChatSpan
        self._closed = self._ended = False

    def logprobs(self) -> dict[str, list[object] | None] | None:
        """Those since the last call, for the gateway; None where the server gives none."""
        if self._opened is None or not (found := self._opened.collected.logprobs):
            return None
        told = {"content": list(found), "refusal": None}
        found.clear()
        return told

    def thoughts(self) -> str:
        """Those since the last call, for the gateway."""
        return "" if self._opened is None else self._opened.collected.thoughts()

    @property
    def description(self) -> Description:
        """The whole answer; raises ConfigError until the stream has been read to its end."""
        if self._description is None:
            raise ConfigError(
                "the stream has not been read to its end", hint="iterate over it first"
            )
        return self._description

    def _take(self) -> Flow[Opened]:
        """The flow, to be performed now; raises ConfigError for a stream begun before or closed."""
        flow, self._flow = self._flow, None
        if self._closed:
            raise ConfigError("the stream is closed", hint="ask again")
        if flow is None:
            raise ConfigError(
                "the stream has been begun already: it is read once",
                hint="ask again, or keep iter(stream) to go on after a break",
            )
        return flow

    def _feed(self, opened: Opened, chunk: bytes) -> Iterator[str]:
        self._ended = not chunk
        pieces = opened.collected.feed(chunk)
        del chunk  # it may repeat a key, and whoever keeps an error may keep variables
        with Translated(opened.step):
            for text in pieces:
                if self._first is None:
                    self._first = time.monotonic()
                    self._span.first_token()
                yield text

    def _finish(self, opened: Opened, begun: Exchanged[str | None]) -> None:
        """Check the whole answer and time it; raises what a whole answer would."""
        timings = Timings(
            prepare=opened.prepared,
            first_token=None if self._first is None else self._first - opened.begun,
            total=time.monotonic() - opened.begun,
            attempts=begun.attempts,
            resent=begun.resent,
        )
        with Translated(opened.step):
            found = opened.collected.finish()
        self._description = found.model_copy(update={"timings": timings})
        self._span.answered(self._description)


@short_errors
class Stream(_Collected):
    """Pieces of text as they come; ``.description`` afterwards.

    Close it, or use ``with``, where it may be left before its end.

    >>> with client.stream("photo.jpg") as stream:  # doctest: +SKIP
    ...     for piece in stream:
    ...         print(piece, end="")
    >>> stream.description.usage  # doctest: +SKIP
    """

    def __init__(self, run: Run, transport: sync.Transport, flow: Flow[Opened]) -> None:
        super().__init__(flow)
        self._run, self._transport = run, transport
        self._under_way: sync.Streaming[str | None] | None = None

    def __iter__(self) -> Iterator[str]:
        opened = self._run(self._take())
        with ChatSpan(opened.call, opened.begun, opened.prepared) as self._span:
            yield from self._read(opened)

    def _read(self, opened: Opened) -> Iterator[str]:
        step = self._span.carried(opened.step)
        self._under_way = stream = self._transport.stream(step)
        self._span.done("send")
        opened.collected.request_id = stream.begun.value
        try:
            # The server may keep the connection open after its last event.
            while not opened.collected.done and not self._ended:
                yield from self._feed(opened, stream.next())
            stream.finish()
        # Closing it from another thread breaks the connection, which is no fault then.
        except EngineError:
            if not self._closed:
                raise
        finally:
            stream.close()
        if not self._closed:
            self._finish(opened, stream.begun)

    def close(self) -> None:
        """End it, read or not: the server writes no further, and no reader waits any more."""
        self._closed = True
        if self._under_way is not None:
            self._under_way.close()

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
class AsyncStream(_Collected):
    """Pieces of text as they come, for ``async for``; ``.description`` afterwards.

    Close it, or use ``async with``, where it may be left before its end.
    """

    def __init__(self, run: ARun, transport: aio.AsyncTransport, flow: Flow[Opened]) -> None:
        super().__init__(flow)
        self._run, self._transport = run, transport
        self._under_way: aio.Streaming[str | None] | None = None

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        opened = self._opened = await self._run(self._take())
        with ChatSpan(opened.call, opened.begun, opened.prepared) as self._span:
            async with aclosing(self._read(opened)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _read(self, opened: Opened) -> AsyncGenerator[str, None]:
        step = self._span.carried(opened.step)
        self._under_way = stream = await self._transport.stream(step)
        self._span.done("send")
        opened.collected.request_id = stream.begun.value
        try:
            while not opened.collected.done and not self._ended:
                for text in self._feed(opened, await stream.next()):
                    yield text
            await stream.finish()
        except EngineError:
            if not self._closed:
                raise
        finally:
            await stream.close()
        if not self._closed:
            self._finish(opened, stream.begun)

    async def aclose(self) -> None:
        """End it, read or not; see ``Stream.close``."""
        self._closed = True
        if self._under_way is not None:
            await self._under_way.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
