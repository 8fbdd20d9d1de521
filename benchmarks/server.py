"""A server that costs next to nothing: what is measured is the client.

    python -m benchmarks.server [--latency SECONDS] [--workers N] [--mbit MBIT]

It answers every chat completion after ``--latency``. ``--workers`` gives it so many workers, each
of which is busy with a picture for as long as InternVL's preprocessing takes for its size; they
sleep, as a server on another machine takes nothing of this one. ``--mbit`` is how much all of its
connections may bring in a second. Prints its URL, and on ``SIGTERM`` its own seconds of CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import random
import re
import resource
import signal
import time
from collections.abc import Iterator

_WHO = (
    "An elderly man in a grey coat",
    "A young woman with a red umbrella",
    "A cyclist",
    "A brown dog on a short leash",
    "A delivery driver",
    "A group of schoolchildren",
    "A street musician with a violin",
    "A waiter carrying three cups",
    "A white cat",
    "A police officer on a horse",
    "A tourist with a paper map",
    "A girl on a scooter",
)
_DOES = (
    "waits beside",
    "walks slowly past",
    "looks up at",
    "leans against",
    "is photographed near",
    "hurries towards",
    "rests in the shade of",
    "points to",
    "turns away from",
    "stands behind",
)
_WHAT = (
    "a yellow tram",
    "the old stone fountain",
    "a shop window full of clocks",
    "a parked lorry",
    "the entrance of the station",
    "a row of plane trees",
    "a market stall with oranges",
    "a mural of whales",
    "the scaffolding of a church",
    "a wooden bench",
    "a bronze statue",
)
_WHILE = (
    "while rain falls on the cobbles", "under a pale evening sky", "as pigeons rise from the roofs",
    "and long shadows reach across the square", "with steam coming from a grate",
    "in front of blurred passers-by", "next to a sign that says 'Closed'", "in bright sunshine",
)  # fmt: skip


def caption(number: int) -> str:
    """A text that no other picture has, as captions are: what judges them has work to do."""
    chance = random.Random(number)
    sentences = (
        " ".join(chance.choice(part) for part in (_WHO, _DOES, _WHAT, _WHILE)) for _ in range(5)
    )
    return ". ".join(sentences) + "."


def answer(number: int) -> dict[str, object]:
    """One completion."""
    message = {"role": "assistant", "content": caption(number)}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": "internvl",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4000, "completion_tokens": 150, "total_tokens": 4150},
    }


_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_PICTURE = re.compile(rb"base64,([A-Za-z0-9+/=]{1,100000})")
"""The beginning of the picture, in whole groups of four."""
LEAST, PER_MEGAPIXEL = 0.005, 0.025
"""Seconds, as measured with Pillow: 12 megapixels take 305 ms, a grid of 4x3 tiles 65."""


def http(document: object) -> bytes:
    """A whole response."""
    body = json.dumps(document).encode()
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return (head % len(body)).encode() + body


MODELS = http(
    {"object": "list", "data": [{"id": "internvl", "object": "model", "owned_by": "lmdeploy"}]}
)
ANSWERS = [http(answer(number)) for number in range(4096)]
"""Made beforehand, and given in turn."""


def busy(body: bytes) -> float:
    """Seconds that InternVL's preprocessing is busy with a picture of that size."""
    from PIL import Image

    found = _PICTURE.search(body)
    assert found
    width, height = Image.open(io.BytesIO(base64.b64decode(found[1]))).size
    return LEAST + width * height / 1e6 * PER_MEGAPIXEL


class Line:
    """An uplink of so many bytes a second, shared by all connections."""

    def __init__(self, mbit: float) -> None:
        self._per_second = mbit * 125_000
        self._free_at = 0.0

    def delay(self, size: int) -> float:
        """Seconds until ``size`` bytes more have come through."""
        if not self._per_second:
            return 0.0
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + size / self._per_second
        return self._free_at - now


class Connection(asyncio.Protocol):
    """One connection; requests one after the other, as clients of HTTP/1.1 send them."""

    def __init__(
        self,
        latency: float,
        workers: asyncio.Semaphore | None,
        line: Line,
        answers: Iterator[bytes],
    ) -> None:
        self._latency, self._workers, self._line = latency, workers, line
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()
        self._parts: list[bytes] = []
        self._size = self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A piece of a request; the next is read when the line is free again."""
        if (pause := self._line.delay(len(data))) > 0.005:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(pause, self._transport.resume_reading)
        self._parts.append(data)
        self._size += len(data)
        if not self._needed:
            self._parts = [b"".join(self._parts)]
            head, found, _ = self._parts[0].partition(b"\r\n\r\n")
            if not found:
                return
            length = _LENGTH.search(head)
            self._needed = len(head) + 4 + (int(length[1]) if length else 0)
        if self._size >= self._needed:
            request, self._parts, self._size, self._needed = b"".join(self._parts), [], 0, 0
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET"):
            self._write(MODELS)
            return
        if self._workers is None:
            asyncio.get_running_loop().call_later(self._latency, self._write, next(self._answers))
            return
        task = asyncio.create_task(self._work(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, request: bytes) -> None:
        assert self._workers is not None
        async with self._workers:
            await asyncio.sleep(busy(request))
        await asyncio.sleep(self._latency)
        self._write(next(self._answers))

    def _write(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


async def serve(latency: float, workers: int, mbit: float) -> None:
    """Until SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    busy_with = asyncio.Semaphore(workers) if workers else None
    line, answers = Line(mbit), itertools.cycle(ANSWERS)
    server = await loop.create_server(
        lambda: Connection(latency, busy_with, line, answers), "127.0.0.1", 0, backlog=1024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await ended.wait()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, flush=True)


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--mbit", type=float, default=0)
    given = parser.parse_args()
    asyncio.run(serve(given.latency, given.workers, given.mbit))


if __name__ == "__main__":
    main()
