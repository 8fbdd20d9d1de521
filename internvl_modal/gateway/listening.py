"""Connections: how long one may wait without a request, and how many may.

uvicorn lets a connection wait for ever for the head of its first request. hypercorn and granian
end it after a time; until then nobody is let in where such connections have taken every file
descriptor, and both are a second server to know. So uvicorn is kept, with this guard.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

IDLE_SECONDS = 10.0
"""A connection may have no whole head of a request, or send what nobody reads, for so long."""
MOST_IDLE = 256
"""Connections without a request; one more ends the one that has been waiting longest."""


class GuardedConnection(H11Protocol):
    """HTTP/1.1 on a connection that costs nobody else theirs, for ``uvicorn.Config(http=...)``."""

    _timer: asyncio.TimerHandle | None = None
    _since: float = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's
        """Begin to wait for a request, in place of whoever has waited too long."""
        super().connection_made(transport)
        self._wait()
        idle = [one for one in self.connections if isinstance(one, GuardedConnection) and one.idle]
        if len(idle) > most_idle():
            min(idle, key=lambda one: one._since).end()

    def on_response_complete(self) -> None:
        """Begin to wait for the next one."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def end(self) -> None:
        """Close it at once, unless a request is being answered."""
        if self.idle:
            self.transport.abort()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(IDLE_SECONDS, self.end)


def most_idle() -> int:
    """Connections that may wait: a quarter of the descriptors that this process may have."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST_IDLE
    return min(MOST_IDLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve ``app`` on a socket until SIGINT or SIGTERM."""
    config = uvicorn.Config(app, http=GuardedConnection, log_level="warning", ws="none")
    uvicorn.Server(config).run(sockets=[listening])
