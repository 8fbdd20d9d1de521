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

    from internvl_modal.client.aio import AsyncClient

MOST_IDLE = 256
"""Connections without a request; one more ends the one that has been waiting longest."""


class GuardedConnection(H11Protocol):
    """HTTP/1.1 on a connection that costs nobody else theirs, for ``uvicorn.Config(http=...)``.

    Built on uvicorn's own class and a few of its attributes.
    """

    patience = 10.0
    """Seconds without a whole head of a request, or of sending what nobody reads."""
    _timer: asyncio.TimerHandle | None = None
    _since: float = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's
        """Begin to wait for a request, in place of whoever has waited too long."""
        super().connection_made(transport)
        # uvicorn writes head and body apart, and TCP would hold the body back for 40 ms until the
        # head is acknowledged. asyncio sets it only on sockets that name their protocol.
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()
        idle = [one for one in self.connections if isinstance(one, GuardedConnection) and one.idle]
        # The one that has waited longest is the least likely to send anything.
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
        """Whether it is open and no request of it is being answered."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.transport.is_closing()

    def end(self) -> None:
        """Close it at once, unless a request is being answered."""
        if self.idle:
            self.transport.abort()

    def _wait(self) -> None:
        """Begin the patience anew; a request under way is left alone when it ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self.patience, self.end)


def most_idle() -> int:
    """Connections that may wait: a quarter of the descriptors that this process may have."""
    return min(MOST_IDLE, _descriptors() // 4)


def _descriptors() -> int:
    """File descriptors that this process may have (RLIMIT_NOFILE)."""
    try:
        import resource
    except ImportError:  # Windows
        return 4 * MOST_IDLE
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4 * MOST_IDLE if limit == resource.RLIM_INFINITY else limit


class _Server(uvicorn.Server):
    """Closes the client before the signal that ended it ends the process."""

    def __init__(self, config: uvicorn.Config, client: AsyncClient) -> None:
        super().__init__(config)
        self._client = client

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, then stop what the client started."""
        # First: requests under way still need the client.
        await super().shutdown(sockets)
        await self._client.aclose()


def run(app: FastAPI, listening: socket.socket, client: AsyncClient) -> None:
    """Serve ``app`` on a socket until SIGINT or SIGTERM, then close the ``client`` that it asks.

    asyncio takes as many connections at once as may be pending, before any is ended for them: so no
    more than as many again as may wait.

    Blocks. ``listening`` is bound already, and closed by uvicorn.
    """
    config = uvicorn.Config(
        app,
        http=GuardedConnection,
        log_level="warning",
        ws="none",
        backlog=most_idle(),
    )
    _Server(config, client).run(sockets=[listening])
