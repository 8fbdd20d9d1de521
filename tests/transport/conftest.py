"""Raw servers on loopback, and a call through either client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

import internvl_modal as ivl
from tests.transport.edge import Edge, edge

QUESTION = [{"role": "user", "text": "What is it?"}]
FAST = ivl.Retry(attempts=4, initial=0.001, maximum=0.002)
KNOWN: dict[str, Any] = {"retry": FAST, "capabilities": ivl.Capabilities()}
"""So that nothing is asked but the question."""

Ask: TypeAlias = Callable[..., ivl.Description]
Talk: TypeAlias = Callable[[socket.socket, bytes], object]


def sync_ask(url: str, text: str = "What is it?", **client: Any) -> ivl.Description:
    with ivl.Client(base_url=url, model="m", **{**KNOWN, **client}) as c:
        return c.chat([{"role": "user", "text": text}])


def async_ask(url: str, text: str = "What is it?", **client: Any) -> ivl.Description:
    async def run() -> ivl.Description:
        async with ivl.AsyncClient(base_url=url, model="m", **{**KNOWN, **client}) as c:
            return await c.chat([{"role": "user", "text": text}])

    return asyncio.run(run())


@pytest.fixture(params=[sync_ask, async_ask], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    made: Ask = request.param
    return made


@pytest.fixture
def modal() -> Iterator[Edge]:
    with edge() as made:
        yield made


class Raw:
    """Hands each connection, once a request is read, to what ``talk`` is then; ends them all."""

    def __init__(self) -> None:
        self.talk: Talk = lambda connection, request: None
        self.requests: list[bytes] = []
        self.closed = threading.Semaphore(0)
        """Released for each connection that the other side has ended."""
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"

    def close(self) -> None:
        for each in [self._listening, *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while request := _read(connection):
                self.requests.append(request)
                if self.talk(connection, request) == "end":
                    connection.close()
                    return
        self.closed.release()


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(n.split(b":")[1]) for n in lines if n.startswith(b"content-length")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def raw() -> Iterator[Raw]:
    made = Raw()
    yield made
    made.close()
