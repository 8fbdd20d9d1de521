"""An edge that behaves as Modal's in front of a slow container, with faults where a test wants them.

It holds a POST for ``hold`` seconds (150 at Modal), then answers 303 with the address of the result;
that answers 303 with its own address while the result is not there, and gives its body once.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from internvl_modal._utils.loop_thread import LoopThread
from tests.loopback import completion, models_list

HOLD = 0.02


class Edge:
    """``script`` says what becomes of each request for an answer, POST or GET, one after the other.

    ``ok``: the answer. ``303``: not yet. ``close``, ``reset``: nothing. ``half``: half the answer.
    Another number: that status. At its end everything is ``ok``.
    """

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.asked: list[tuple[str, str]] = []
        """Method and path of every request but those for the models."""
        self.given: set[str] = set()
        """Results whose body is given away."""
        self.hold = HOLD
        self.open = 0
        """Connections now."""
        self._questions: dict[str, str] = {}
        self._thread = LoopThread("edge")
        self._server = self._thread.call(asyncio.start_server(self._connected, "127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    @property
    def posts(self) -> int:
        return sum(method == "POST" for method, _ in self.asked)

    def will(self, *script: str) -> None:
        self.script, self.asked = deque(script), []

    def close(self) -> None:
        if self._thread.loop.is_closed():
            return

        async def stop() -> None:
            self._server.close()
            others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._thread.call(stop())
        self._thread.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while await self._serve(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection lives on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split(" ", 2)
        length = re.search(r"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if path.endswith("/models"):
            writer.write(_answer("200 OK", json.dumps(models_list()).encode()))
            return True
        self.asked.append((method, path))
        if method == "POST":
            call = f"fc-{len(self._questions)}"
            content = json.loads(body)["messages"][-1]["content"]
            items = [{"text": content}] if isinstance(content, str) else content
            self._questions[call] = next(item["text"] for item in items if "text" in item)
        else:
            call = path.rpartition("=")[2]
        return await self._act(self.script.popleft() if self.script else "ok", call, writer)

    async def _act(self, what: str, call: str, writer: asyncio.StreamWriter) -> bool:
        text = self._questions[call]
        answer = _answer("200 OK", json.dumps(completion(text)).encode())
        if call in self.given:
            writer.write(_answer("404 Not Found", b"modal-http: no such call"))
        elif what == "ok":
            self.given.add(call)
            writer.write(answer)
        elif what == "303":
            await asyncio.sleep(self.hold)
            place = f"location: /v1/result?__modal_function_call_id={call}\r\n"
            writer.write(_answer("303 See Other", b"", place))
        elif what == "half":
            writer.write(answer[: len(answer) - 20])
            return False
        elif what == "hang":
            await asyncio.sleep(3600)
        elif what == "reset":
            writer.transport.abort()
            return False
        elif what == "close":
            return False
        else:
            writer.write(_answer(f"{what} Sorry", b"not now"))
        return True


def _answer(status: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def edge() -> Iterator[Edge]:
    made = Edge()
    try:
        yield made
    finally:
        made.close()
