"""Exchanges for callers that block: those of ``aio``, in the process's one event loop thread.

One transport serves both clients, and a wait there ends when its time is up, whatever the server
is doing; a blocking socket's read has a timeout for each read only.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from internvl_modal._utils.loop_thread import LoopThread, shared_loop
from internvl_modal.transport.exchange import Exchange, Exchanged, closed
from internvl_modal.transport.retry import Retry

if TYPE_CHECKING:
    import httpx

    from internvl_modal.transport import aio
    from internvl_modal.transport.aio import AsyncTransport

T = TypeVar("T")

_CLOSING = 2.0
"""Seconds that the end of the program gives connections to say goodbye."""
_open: weakref.WeakSet[AsyncTransport] = weakref.WeakSet()


class Transport:
    """Performs exchanges for ``Client``; closes its connections, never those of ``client``.

    Safe in threads, and after a fork: a child opens connections of its own.
    """

    def __init__(self, client: httpx.Client | None, retry: Retry) -> None:
        self._client, self._retry = client, retry
        self._of: dict[int, AsyncTransport] = {}
        """By process: two must not share a connection; a parent's stay in a child, untouched."""
        self._closed = False
        # For clients that nobody closes; at the end of the program ``_close_all`` does it.
        weakref.finalize(self, _let_go, self._of).atexit = False

    def _over(self) -> AsyncTransport:
        """The transport of this process, made at its first use; ConfigError once closed."""
        if self._closed:
            raise closed()
        if made := self._of.get(os.getpid()):
            return made
        from internvl_modal.transport.aio import AsyncTransport

        # Two threads may both make one; the first that is kept is used by both.
        made = self._of.setdefault(os.getpid(), AsyncTransport(self._client, self._retry))
        _open.add(made)
        return made

    def close(self) -> None:
        """Wake whoever waits; close the connections, unless they are the user's."""
        self._closed = True
        if made := self._of.get(os.getpid()):
            shared_loop().call(made.close())

    def send(self, step: Exchange[T]) -> Exchanged[T]:
        """Exchange and decode, again where that may help."""
        return shared_loop().call(self._over().send(step))

    def stream(self, step: Exchange[T]) -> Streaming[T]:
        """Open a streamed answer, again where that may help."""
        loop = shared_loop()
        return Streaming(loop, loop.call(self._over().stream(step)))


class Streaming(Generic[T]):
    """A streamed answer that has begun; ``close`` it.

    Its reader's thread waits; ``close`` may come from any other.
    """

    def __init__(self, loop: LoopThread, there: aio.Streaming[T]) -> None:
        self.begun = there.begun
        self._loop, self._there = loop, there

    def next(self) -> bytes:
        """The next piece; empty at the end."""
        return self._loop.call(self._there.next())

    def finish(self) -> None:
        """Close once all has been said."""
        self._loop.finish(self._there.finish())

    def close(self) -> None:
        """Give the connection back if all was read, else end it."""
        self._loop.finish(self._there.close())


def _let_go(made: dict[int, AsyncTransport]) -> None:
    """Close what a client left that nobody closed; waits for nothing, wherever it is collected."""
    if (mine := made.get(os.getpid())) and not sys.is_finalizing():
        loop = shared_loop().loop
        loop.call_soon_threadsafe(lambda: loop.create_task(mine.close()))


@atexit.register
def _close_all() -> None:
    """Say goodbye to servers at the end of the program, and wait two seconds at most for that."""
    for each in list(_open):
        with suppress(Exception):
            shared_loop().call(each.close(), _CLOSING)
