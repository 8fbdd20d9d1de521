"""A thousand answers made to fill memory, met by a process of its own whose peak is measured."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys

import pytest

from internvl_modal.protocol.http import DEEPEST, MOST_VALUES, json_of, read_json
from tests.transport.conftest import Raw

MOST = 100 * 1024
"""KiB, the interpreter and every library included."""
ASKING = """
import asyncio, itertools, sys
from pathlib import Path
import internvl_modal as ivl

URL, HOW, TOKENS, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3]) or None, int(sys.argv[4])
AT_ONCE = int(sys.argv[5])

async def ask(client):
    question = [{"role": "user", "text": "What is it?"}]
    if HOW == "models":
        await client.models()
    elif HOW == "stream":
        async for _ in client.stream_chat(question, max_tokens=TOKENS):
            pass
    else:
        await client.chat(question, max_tokens=TOKENS)

async def worker(client, numbers, failed):
    for _ in numbers:
        try:
            await ask(client)
        except ivl.ServerError as error:
            failed.append(type(error).__name__)

async def run():
    failed, numbers = [], iter(range(COUNT))
    retry, known = ivl.Retry(attempts=1), ivl.Capabilities()
    async with ivl.AsyncClient(base_url=URL, model="m", retry=retry, capabilities=known) as client:
        await asyncio.gather(*(worker(client, numbers, failed) for _ in range(AT_ONCE)))
    return len(failed)

print(asyncio.run(run()))
status = Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""


def hostile(size: int) -> list[bytes]:
    """Documents of ``size`` bytes, or little more, each to fill memory in its own way."""
    names = b",".join(b'"%d":{}' % n for n in range(size // 10))
    strings = b",".join(b'"%d"' % n for n in range(size // 8))
    text = '"\U0001f600' + "a" * size + '"'
    return [
        b"[" + b",".join([b"{}"] * (size // 3)) + b"]",
        b'{"choices":[' + b",".join([b'{"a":[]}'] * (size // 9)) + b"]}",
        b'{"choices":[{"message":{"content":"","extra":{' + names + b"}}}]}",
        b'{"data":[' + strings + b"]}",
        b"[" * size,
        b'{"a":' * (size // 5),
        b'{"model":"m","choices":[{"message":{"content":' + text.encode() + b"}}]",
        b'{"a":' + b'"' * size,
        b'{"a":"' + b"\\u0041" * (size // 6) + b'","choices":[' + b"[],{}," * (size // 12),
        b"[" + b"1.5," * (size // 4) + b"1]",
        b'{"error":{"message":[' + b",".join([b'{"msg":""}'] * (size // 11)) + b"]}}",
    ]


def serve(raw: Raw, documents: list[bytes], before: bytes = b"", after: bytes = b"") -> None:
    turn = itertools.cycle(documents)

    def talk(connection: socket.socket, _: bytes) -> str:
        body = before + next(turn) + after
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return "end"

    raw.talk = talk


def peak(raw: Raw, how: str, tokens: int, count: int, at_once: int = 1) -> int:
    """The peak in KiB of a process that asks so often, and is answered nothing of use."""
    done = subprocess.run(
        [sys.executable, "-c", ASKING, raw.url, how, str(tokens), str(count), str(at_once)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    failed, kib = map(int, done.stdout.split())
    assert failed == count
    return kib


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc: run on Linux")
class TestAThousand:
    def test_answers(self, raw: Raw) -> None:
        serve(raw, hostile(180_000))
        assert peak(raw, "chat", 1024, 1000, at_once=8) < MOST

    @pytest.mark.parametrize(("how", "count"), [("chat", 1000), ("stream", 128)])
    def test_64_at_once_without_a_limit_of_tokens(self, raw: Raw, how: str, count: int) -> None:
        serve(raw, hostile(1_000_000))
        assert peak(raw, how, 0, count, at_once=64) < MOST

    def test_64_events_at_once(self, raw: Raw) -> None:
        serve(raw, hostile(900_000), b"data: ", b"\n\n")
        assert peak(raw, "stream", 0, 128, at_once=64) < MOST

    def test_64_long_texts_at_once(self, raw: Raw) -> None:
        text = "ab\U0001f600" * 250
        said = f'data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n'
        serve(raw, [said.encode() * 400])
        assert peak(raw, "stream", 0, 128, at_once=64) < MOST

    @pytest.mark.parametrize(
        ("how", "tokens", "size"),
        [("chat", 0, 1_000_000), ("models", 0, 2_000_000), ("stream", 1024, 900_000)],
    )
    def test_larger_ones(self, raw: Raw, how: str, tokens: int, size: int) -> None:
        serve(raw, hostile(size))
        assert peak(raw, how, tokens, 60) < MOST

    def test_events(self, raw: Raw) -> None:
        serve(raw, hostile(800_000), b"data: ", b"\n\n")
        assert peak(raw, "stream", 1024, 60) < MOST


@pytest.mark.parametrize("document", hostile(1_000_000), ids=lambda _: "document")
def test_refused_before_anything_is_built(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"values|nested|delimiter|line 1"):
        read_json(document.decode())
    assert json_of(document) is None


def test_what_is_long_and_no_bomb_is_read() -> None:
    listed = {"data": [{"id": f"m{n}", "tags": ["a,[{", 'b"\\', {}]} for n in range(12_000)]}
    assert json_of(json.dumps(listed).encode()) == listed
    text = {"content": ", [{" * 100_000 + '\\"' * 1000}
    assert json_of(json.dumps(text).encode()) == text


@pytest.mark.parametrize(("depth", "read"), [(DEEPEST, True), (DEEPEST + 1, False)])
def test_depth(depth: int, read: bool) -> None:
    assert (json_of(b"[" * depth + b"]" * depth) is not None) is read


@pytest.mark.parametrize(("values", "read"), [(MOST_VALUES, True), (MOST_VALUES + 2, False)])
def test_values(values: int, read: bool) -> None:
    document = b"[" + b",".join([b"[]"] * (values // 2)) + b",1" * (values % 2) + b"]"
    assert (json_of(document) is not None) is read


@pytest.mark.parametrize("codec", ["utf-16", "utf-32", "utf-16-le"])
def test_json_on_the_net_is_utf_8(codec: str) -> None:
    assert json_of('{"a": 1}'.encode(codec)) is None


def test_a_byte_order_mark_is_forgiven() -> None:
    assert json_of('{"a": 1}'.encode("utf-8-sig")) == {"a": 1}
