"""The deadline is a wall clock: these servers never end what they began."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time

import pytest

import internvl_modal as ivl
from tests.transport.conftest import KNOWN, QUESTION, Ask, Raw

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TRICKLES = {
    "status line": (b"HTTP/1.1 200 O", b"K"),
    "header": (HEAD + b"X: ", b"a"),
    "1xx answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk header": (CHUNKED + b"1;", b"a"),
    "trailers": (CHUNKED + b"0\r\n", b"A"),
    "body": (HEAD + b"content-length: 1000000\r\n\r\n", b" "),
    "redirects": (b"", b"HTTP/1.1 303 See\r\nlocation: /v1/r\r\ncontent-length: 0\r\n\r\n"),
    "error": (b"HTTP/1.1 500 X\r\ncontent-length: 1000000\r\n\r\n", b"e"),
}


def trickle(raw: Raw, begin: bytes, each: bytes, pause: float = 0.05) -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(each)
            time.sleep(pause)

    raw.talk = talk


@pytest.mark.parametrize("where", TRICKLES)
def test_whatever_trickles(ask: Ask, raw: Raw, where: str) -> None:
    trickle(raw, *TRICKLES[where])
    with pytest.raises(ivl.DeadlineExceededError, match="timeout"):
        ask(raw.url, timeout=0.5)
    assert len(raw.requests) < 20
    raw.closed.acquire(timeout=30)


def test_a_tls_handshake_that_never_answers(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ivl.DeadlineExceededError):
            ask(url, timeout=0.5)


def test_a_stream_that_trickles(raw: Raw) -> None:
    trickle(raw, CHUNKED, b"3\r\n: \n\r\n")
    with (
        ivl.Client(base_url=raw.url, model="m", **KNOWN) as client,
        pytest.raises(ivl.DeadlineExceededError),
    ):
        list(client.stream_chat(QUESTION, timeout=0.5))


def test_closing_wakes_who_waits(raw: Raw) -> None:
    asked = threading.Event()
    raw.talk = lambda connection, _: asked.set()
    client = ivl.Client(base_url=raw.url, model="m", **KNOWN)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            client.chat(QUESTION)
        except ivl.InternVLError as error:
            failures.append(error)

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for each in waiting:
        each.start()
    assert asked.wait(60)
    client.close()
    for each in waiting:
        each.join(60)
    assert [type(error) for error in failures] == [ivl.ConfigError] * 3
    assert all("closed" in str(error) for error in failures)


async def heard(raw: Raw) -> None:
    """Wait for a request."""
    while not raw.requests:  # noqa: ASYNC110 - it is another thread that hears it
        await asyncio.sleep(0.01)


def test_closing_wakes_a_pause(raw: Raw) -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 503 X\r\nretry-after: 100\r\ncontent-length: 0\r\n\r\n")

    raw.talk = talk

    async def run() -> None:
        client = ivl.AsyncClient(base_url=raw.url, model="m", **KNOWN, timeout=1000)
        asking = asyncio.create_task(client.chat(QUESTION))
        await heard(raw)
        await asyncio.sleep(0.1)
        await client.aclose()
        with pytest.raises(ivl.ConfigError, match="closed"):
            await asking

    asyncio.run(run())


def test_a_cancelled_task_ends_its_connection(raw: Raw) -> None:
    async def run() -> None:
        async with ivl.AsyncClient(base_url=raw.url, model="m", **KNOWN) as client:
            asking = asyncio.create_task(client.chat(QUESTION))
            await heard(raw)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await asyncio.to_thread(raw.closed.acquire, timeout=60)

    asyncio.run(run())


def event(text: str) -> bytes:
    data = b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % text.encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_stream_ends_with_its_last_word(raw: Raw) -> None:
    done = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

    def talk(connection: socket.socket, _: bytes) -> None:
        last = b"%x\r\n%s\r\n" % (len(done), done)
        connection.sendall(CHUNKED + event("a") + event("b") + last)  # and it stays open

    raw.talk = talk
    with ivl.Client(base_url=raw.url, model="m", **KNOWN) as client:
        assert list(client.stream_chat(QUESTION)) == ["a", "b"]
        assert raw.closed.acquire(timeout=60)

    async def run() -> None:
        async with ivl.AsyncClient(base_url=raw.url, model="m", **KNOWN) as client:
            assert [text async for text in client.stream_chat(QUESTION)] == ["a", "b"]
            assert await asyncio.to_thread(raw.closed.acquire, timeout=60)

    asyncio.run(run())


def endless(raw: Raw) -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(CHUNKED)
        for number in itertools.count():
            connection.sendall(event(str(number)))
            time.sleep(0.01)

    raw.talk = talk


def test_a_stream_that_is_closed_ends_its_connection(raw: Raw) -> None:
    endless(raw)
    with ivl.Client(base_url=raw.url, model="m", **KNOWN) as client:
        with client.stream_chat(QUESTION) as stream:
            assert next(iter(stream)) == "0"
        assert raw.closed.acquire(timeout=60)
        with pytest.raises(ivl.ConfigError, match="closed"):
            next(iter(stream))

    async def run() -> None:
        async with ivl.AsyncClient(base_url=raw.url, model="m", **KNOWN) as client:
            async with client.stream_chat(QUESTION) as stream:
                async for text in stream:
                    assert text == "0"
                    break
            assert await asyncio.to_thread(raw.closed.acquire, timeout=60)

    asyncio.run(run())


def test_a_stream_closed_by_another_thread_comes_to_an_end(raw: Raw) -> None:
    endless(raw)
    with ivl.Client(base_url=raw.url, model="m", **KNOWN) as client:
        stream = client.stream_chat(QUESTION)
        begun = threading.Event()
        pieces: list[str] = []

        def read() -> None:
            for text in stream:
                pieces.append(text)
                begun.set()

        reading = threading.Thread(target=read)
        reading.start()
        assert begun.wait(60)
        stream.close()
        reading.join(60)
        assert not reading.is_alive()
        with pytest.raises(ivl.ConfigError, match="not been read"):
            _ = stream.description
