"""A long batch against a server with faults: ``python -m tests.soak [MINUTES]``, 15 by default.

64 requests in flight, of which 5% meet a fault of ten kinds, and one picture in 200 is none. Memory,
file descriptors and threads must stay flat, and the books must balance to the last request.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

import internvl_modal as ivl
from tests.loopback import completion, models_list

AT_ONCE = 64
FAULTS = 0.05
KEY_BYTES = 500
"""Of memory for each picture, however long ago: its key, here and in the batch."""
HEAD = "HTTP/1.1 {} X\r\ncontent-length: {}\r\n{}\r\n"


def said(document: object, status: int = 200, more: str = "", longer: int = 0) -> bytes:
    """An answer; ``longer`` bytes of its announced length never come."""
    body = json.dumps(document).encode() if document != "" else b""
    return HEAD.format(status, len(body) + longer, more).encode() + body


def breaks(text: str) -> list[bytes]:
    """What is said in place of an answer before the connection ends."""
    whole = completion(text)
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return [
        b"",
        said(whole)[:-40],
        said(whole, longer=1),
        chunked + b"zz\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ]


def refusals() -> list[bytes]:
    """What is said in place of an answer over a connection that lives on.

    If it ended, a request could be on its way to nobody, and attempts would not be POSTs.
    """
    return [
        said("", 503),
        said({"error": {"message": "busy"}}, 429, "retry-after: 0\r\n"),
        said({"detail": "out of memory"}, 500),
        said({"error": {"message": "the engine died"}}),
        said(completion("")),
    ]


class Server:
    """Answers with the digest of the picture, so that no answer can stand under another's key."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.posts = self.faults = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until a fault ends it."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"POST"):
            writer.write(said(models_list("vllm", "m")))
            return True
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.posts += 1
        text = digest(body.partition(b";base64,")[2].partition(b'"')[0])
        await asyncio.sleep(0.01)
        if self.random.random() >= FAULTS:
            writer.write(said(completion(text)))
            return True
        self.faults += 1
        ends = self.random.random() < 0.5
        writer.write(self.random.choice(breaks(text) if ends else refusals()))
        await writer.drain()
        return not ends


def serve(pipe: Connection) -> None:
    """Tell the port, then the counts once something is sent."""

    async def run() -> None:
        server = Server()
        listening = await asyncio.start_server(server.connected, "127.0.0.1", 0, limit=2**22)
        pipe.send(listening.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send((server.posts, server.faults))

    asyncio.run(run())


def digest(encoded: bytes) -> str:
    return hashlib.blake2b(encoded, digest_size=12).hexdigest()


def picture(number: int) -> bytes:
    """A small PNG like no other; one in 200 is cut and so none."""
    out = io.BytesIO()
    colours = (number & 255, number >> 8 & 255, number >> 16 & 255)
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").point(
        [value ^ colour for colour in colours for value in range(256)]
    ).save(out, "PNG")
    return out.getvalue()[:-30] if number % 200 == 199 else out.getvalue()


@dataclass
class Books:
    """What went in, what came out, and what it took."""

    until: float
    put_in: int = 0
    described: int = 0
    attempts: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    rows: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Seconds, KiB of memory, file descriptors, threads."""

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """Pictures until time is up."""
        while time.monotonic() < self.until:
            yield str(self.put_in), picture(self.put_in)
            self.put_in += 1

    def note(self, outcome: ivl.Outcome) -> None:
        """Enter one outcome."""
        if outcome.key in self.keys:
            self.wrong.append(f"{outcome.key} came twice")
        self.keys.add(outcome.key)
        self.attempts += outcome.attempts
        number = int(outcome.key)
        if outcome.description is None:
            self.failed[type(outcome.error).__name__] += 1
            return
        self.described += 1
        sent = digest(base64.b64encode(picture(number)))
        if outcome.description.text != sent:
            self.wrong.append(f"{outcome.key} has the answer of another")

    def look(self) -> None:
        """Enter what the process takes now."""
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        memory = int(status["VmRSS"].split()[0])
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - shorter
        self.rows.append((time.monotonic(), memory, files, threading.active_count()))


def flat(rows: list[tuple[float, int, int, int]], pictures: int) -> list[str]:
    """What the last third takes beyond the second one: more than noise is a leak.

    A batch remembers the keys of all ``pictures``, and so does this program.
    """
    third = len(rows) // 3
    keys = KEY_BYTES * pictures // 3 // 1024
    before, after = rows[third : 2 * third], rows[2 * third :]
    found = []
    for place, name, slack in (
        (1, "memory", 8 * 1024 + keys),
        (2, "descriptors", AT_ONCE),
        (3, "threads", 2),
    ):
        first, last = max(row[place] for row in before), max(row[place] for row in after)
        print(f"{name}: at most {first} in the second third, {last} in the last")
        if last > first + slack:
            found.append(f"{name} grew from {first} to {last}")
    return found


def main() -> None:
    """Print the books, and end with 1 where they do not balance."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs,), daemon=True
    )
    process.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    books = Books(time.monotonic() + 60 * minutes)
    retry = ivl.Retry(attempts=6, initial=0.01, maximum=0.1, resend=5)
    known = ivl.Capabilities("vllm", tokens_per_tile=256, max_tiles=12)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.jsonl")
        with ivl.Client(base_url=url, model="m", retry=retry, capabilities=known) as client:
            for outcome in client.describe_many(books.pictures(), out=out, concurrency=AT_ONCE):
                books.note(outcome)
                if not books.rows or time.monotonic() - books.rows[-1][0] > minutes:
                    books.look()
        lines = len(out.read_bytes().splitlines())
    ours.send("end")
    posts, broken = ours.recv()
    process.join()
    print(f"{books.put_in} pictures, {books.described} described, failed: {dict(books.failed)}")
    print(f"{posts} POSTs, {books.attempts} attempts in the outcomes, {broken} faults")
    wrong = [*books.wrong[:5], *flat(books.rows, books.put_in)]
    if not books.put_in == len(books.keys) == lines == books.described + books.failed.total():
        wrong.append(f"{books.put_in} in, {len(books.keys)} keys, {lines} lines")
    if posts != books.attempts:
        wrong.append(f"{posts} POSTs and {books.attempts} attempts")
    if books.failed["ImageError"] != books.put_in // 200:
        wrong.append("damaged pictures and other failures do not match")
    print("wrong:", "; ".join(wrong) or "nothing")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
