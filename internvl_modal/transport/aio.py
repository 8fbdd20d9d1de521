"""Exchanges in an event loop: attempts, redirects and deadline, for both clients.

Attempts, redirects and the deadline are here once for both clients; what moves the bytes is a
``Carrier``. The deadline is a cancel scope and not a timeout of single reads: a server that sends a
byte now and then would never meet such a one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio

from internvl_modal.errors import ConfigError, InternVLError, ServerError
from internvl_modal.transport.exchange import (
    ANSWER_BYTES,
    ERROR_BYTES,
    EVENTS_BYTES,
    LARGE,
    LIST_BYTES,
    SMALL,
    STREAM_BYTES,
    BrokenError,
    Carrier,
    Exchange,
    Exchanged,
    Reply,
    UnusableError,
    closed,
    first_hop,
    out_of_time,
    remaining,
    shown,
    waiting,
)
from internvl_modal.transport.failures import Translated, answered, too_much
from internvl_modal.transport.masking import forget
from internvl_modal.transport.over_aiohttp import Pool
from internvl_modal.transport.redirects import next_hop, unusable
from internvl_modal.transport.retry import Retry
from internvl_modal.transport.servers import Servers

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

logger = logging.getLogger("internvl_modal.transport")

LINGER = 0.05
"""Seconds for a stream that has said all to end as well, so that its connection is kept."""


class AsyncTransport:
    """Performs exchanges in the event loop that it is first used in; ``client``: the user's own.

    Made in any thread, used in one loop. ``send`` and ``stream`` raise the errors of ``exchange``
    and of the step's ``decode``; calls under way end with ConfigError when it is closed.
    """

    def __init__(self, client: httpx.AsyncClient | httpx.Client | None, retry: Retry) -> None:
        self._carrier: Carrier
        if client is None:
            self._carrier = Pool()
        else:
            from internvl_modal.transport.over_httpx import Borrowed

            self._carrier = Borrowed(client)
        self._own = client is None
        self._retry = retry
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers = Servers()
        self._scopes: set[anyio.CancelScope] = set()
        self._closed = False
        self._cold = False
        self._large: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._large = WeakKeyDictionary()

    async def close(self) -> None:
        """Wake whoever waits, with ConfigError; close connections that are not the user's."""
        self._closed = True
        for scope in list(self._scopes):
            scope.cancel()
        # Connections of a loop that is gone cannot be closed here; its end has closed their
        # sockets.
        if self._loop is None or self._loop is asyncio.get_running_loop():
            await self._carrier.close()

    async def send(self, step: Exchange[T]) -> Exchanged[T]:
        """Exchange and decode, again where that may help."""
        return await self._insist(step, self._once)

    async def stream(self, step: Exchange[T]) -> Streaming[T]:
        """Open a streamed answer, again where that may help."""
        begun: Exchanged[tuple[Reply, T]] = await self._insist(step, self._begin)
        reply, value = begun.value
        told = Exchanged(value, begun.attempts, begun.resent)
        return Streaming(told, reply, step, self.until, self._places)

    async def _insist(
        self, step: Exchange[Any], attempt: Callable[[Exchange[Any]], Awaitable[T]]
    ) -> Exchanged[T]:
        """``attempt`` as often as the rule says; waits are part of the deadline."""
        self._check_loop()
        rule, number = step.retry or self._retry, 1
        # Around all attempts and pauses: the deadline is the call's.
        with self.until(step.deadline):
            while True:
                try:
                    value = await self._servers.send(step, attempt)
                    return Exchanged(value, number, step.so_far.lost)
                except InternVLError as error:
                    lost = step.so_far.lost
                    pause = None
                    if not step.so_far.over:
                        pause = rule.pause(number, error, step.deadline, lost=lost)
                    if pause is None:
                        forget(error)
                        raise
                await asyncio.sleep(pause)
                number += 1

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """End what is awaited in here at the deadline, or when the client is closed."""
        if self._closed:
            raise closed()
        left = remaining(deadline)
        # The loop's clock is anyio's, and asking anyio for it takes longer.
        with anyio.CancelScope(deadline=asyncio.get_running_loop().time() + left) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        # Our own scope has ended it, not a cancellation from outside, which goes on as it is.
        if scope.cancelled_caught:
            raise closed() if self._closed else out_of_time()

    async def _once(self, step: Exchange[T]) -> T:
        """One attempt with its whole body; the connection is given back whatever happens."""
        with Translated(step):
            reply = await self._open(step)
            try:
                return answered(step, reply, await self._body(reply, step))
            finally:
                await reply.close()

    async def _begin(self, step: Exchange[T]) -> tuple[Reply, T]:
        """One attempt up to the head of a 200; of any other answer the body too, since it is the
        error.
        """
        with Translated(step):
            reply = await self._open(step)
            try:
                if reply.status == 200:
                    return reply, answered(step, reply, b"")
                return reply, answered(step, reply, await self._body(reply, step))
            except BaseException:
                await reply.close()
                raise

    async def _open(self, step: Exchange[Any]) -> Reply:
        """Send the request and follow where it leads."""
        hop, status = first_hop(step), None
        while True:
            # By hand and not by the library: keys must not follow to another origin, and Modal's
            # 303 must be remembered over attempts.
            try:
                reply = await self._carrier.open(hop)
            except UnusableError as error:
                raise unusable(step, error, status) from None
            try:
                following = next_hop(hop, reply, step)
            except BaseException:
                await reply.close()
                raise
            if following is None:
                return reply
            self._tell_cold(step)
            try:
                await self._body(reply, step)  # so that its connection is kept
            finally:
                await reply.close()
            hop, status = following, reply.status

    async def _body(self, reply: Reply, step: Exchange[Any]) -> bytes:
        """The whole body; of an error its beginning."""
        whole = ANSWER_BYTES if step.request.method == "POST" else LIST_BYTES
        whole = EVENTS_BYTES if step.events else whole
        most = min(step.most or whole, whole) if reply.status == 200 else ERROR_BYTES
        parts, size, turn = [], 0, Turn(self._places)
        try:
            while chunk := await reply.read():
                parts.append(chunk)
                size += len(chunk)
                # An answer that is cut would be read as broken JSON; of an error the beginning
                # will do.
                if size > most and reply.status == 200:
                    raise too_much(step, most)
                if size > most:
                    break
                await turn.needed(size)
            return b"".join(parts)
        finally:
            turn.over()

    def _places(self) -> asyncio.Semaphore:
        """For large answers; a client of the user's may be used in several loops."""
        loop = asyncio.get_running_loop()
        places = self._large.get(loop)
        if places is None:
            places = self._large[loop] = asyncio.Semaphore(LARGE)
        return places

    def _tell_cold(self, step: Exchange[Any]) -> None:
        """Say once that a container starts: minutes without a word look like a fault."""
        if step.so_far.hop is None:
            return
        if not self._cold:
            self._cold = True
            logger.info("%s at %s", waiting(step), shown(step.base_url))
        if step.on_wait is not None:
            step.on_wait(waiting(step))

    def _check_loop(self) -> None:
        """Connections of one event loop cannot be used in another."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        # A client of the user's is the user's business: httpx says itself what it can.
        if self._own and self._loop is not loop:
            raise ConfigError(
                "this AsyncClient has been used in another event loop",
                hint="make one in each event loop, or use a Client",
            )


class Streaming(Generic[T]):
    """A streamed answer that has begun; ``close`` it.

    One reader at a time. Its deadline is that of the call and not of each piece.
    """

    def __init__(
        self,
        begun: Exchanged[T],
        reply: Reply,
        step: Exchange[T],
        until: Callable[[float], AbstractContextManager[None]],
        large: Callable[[], asyncio.Semaphore],
    ) -> None:
        self.begun = begun
        self._reply, self._step, self._until = reply, step, until
        self._most = self._left = min(step.most or STREAM_BYTES, STREAM_BYTES)
        self._turn = Turn(large)

    async def next(self) -> bytes:
        """The next piece; empty at the end."""
        with Translated(self._step, begun=True), self._until(self._step.deadline):
            await self._turn.needed(self._step.held())
            chunk = await self._reply.read()
        self._left -= len(chunk)
        # A model in a loop, or a server of another kind: nothing that we ask for is as long.
        if self._left < 0:
            raise too_much(self._step, self._most)
        return chunk

    async def finish(self) -> None:
        """Close once all has been said; a server that says nothing more may keep its connection."""
        with suppress(BrokenError, ServerError), anyio.move_on_after(LINGER):
            await self._reply.read()
        await self.close()

    async def close(self) -> None:
        """Give the connection back if all was read, else end it."""
        self._turn.over()
        await self._reply.close()


class Turn:
    """A place among the ``large`` answers, for as long as one is large.

    Without it, whatever waits in memory for its end would be as much as there are answers.
    """

    def __init__(self, large: Callable[[], asyncio.Semaphore]) -> None:
        self._large, self._has = large, False

    async def needed(self, size: int) -> None:
        """Wait for a place where ``size`` takes one; give it back where it does not."""
        if size > SMALL and not self._has:
            await self._large().acquire()
            self._has = True
        elif size <= SMALL:
            self.over()

    def over(self) -> None:
        """Give the place back."""
        if self._has:
            self._has = False
            self._large().release()
