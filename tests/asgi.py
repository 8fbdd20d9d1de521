"""An ASGI app served on loopback for the length of a ``with`` block."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from internvl_modal.client.aio import AsyncClient


class _Server(uvicorn.Server):
    """Closes a gateway's client in the event loop that its connections belong to."""

    def __init__(self, config: uvicorn.Config, client: AsyncClient | None) -> None:
        super().__init__(config)
        self._client = client

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._client is not None:
            await self._client.aclose()


@contextmanager
def serving(app: Any, *, closing: bool = True, **settings: Any) -> Iterator[str]:
    """Run an ASGI app on a free port and give its origin; without ``closing`` its client stays."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", ws="none", **settings
    )
    client = getattr(getattr(app, "state", None), "client", None) if closing else None
    server = _Server(config, client)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
