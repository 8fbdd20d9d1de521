"""A key that a server repeats is in no error, however the error is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import socket
import struct
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import internvl_modal as ivl
from internvl_modal.transport.masking import masked, secrets_of
from tests.transport.conftest import QUESTION, Raw

KEY = "sk-" + "0123456789abcdef" * 2
TOLD = KEY.encode()
HEAD = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes, *, status: int = 200, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n%s" % (status, more, len(body), body)


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": [{"delta": {"content": "A cat"}}]}\n\n'
REPEATS = {
    "the words of a 400": answer(b'{"error": {"message": "no ' + TOLD + b'"}}', status=400),
    "a page of a 401": answer(b"<p>bearer " + TOLD + b"</p>", status=401),
    "a 400, cut by our limit": answer(b" " * 1980 + TOLD, status=400),
    "the words of a 500": answer(b'{"detail": "' + TOLD + b'"}', status=500),
    "an error in a 200": answer(b'{"error": {"message": "no ' + TOLD + b'"}}'),
    "what is no completion": answer(b"you sent " + TOLD),
    "a header without a colon": HEAD + b"Authorization Bearer " + TOLD + b"\r\n\r\n",
    "a status line": b"HTTP/1.1 " + TOLD + b"\r\n\r\n",
    "no HTTP": b"Authorization: Bearer " + TOLD + b"\r\n\r\n",
    "a length": HEAD + b"content-length: " + TOLD + b"\r\n\r\n",
    "a coding": answer(b"abc", more=b"content-encoding: " + TOLD + b"\r\n"),
    "a size of a chunk": CHUNKED + TOLD + b"\r\n",
    "a long header": HEAD + b"X: " + TOLD * 5000 + b"\r\n\r\n",
    "a redirect": answer(b"", status=307, more=b"location: ftp://x/" + TOLD + b"\r\n"),
    "a request id": answer(b"", status=400, more=b"x-request-id: " + TOLD + b"\r\n"),
    "an event": answer(EVENT + b"data: no JSON but " + TOLD + b"\n\n"),
    "an error after half a stream": answer(EVENT + b'data: {"error": "no ' + TOLD + b'"}\n\n'),
    "nothing": b"",
}


def ways(error: BaseException) -> Iterator[str]:
    """All that a log or a service for errors may take from it."""
    yield "".join(traceback.format_exception(error))
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    told: traceback.TracebackException | None = whole
    while told is not None:
        ours = [frame for frame in told.stack if "tests" not in frame.filename]
        yield from (str(frame.locals) for frame in ours)
        told = told.__cause__ or told.__context__
    link: BaseException | None = error
    while link is not None:
        yield from (repr(link), str(vars(link)), str(link.args))
        link = link.__cause__ or link.__context__
    yield pickle.dumps(error).decode("latin-1")


def known(url: str) -> dict[str, Any]:
    rules = {"retry": ivl.Retry(2, initial=0), "capabilities": ivl.Capabilities(), "timeout": 20}
    return {"base_url": url, "model": "m", "api_key": KEY, **rules}


def plain(url: str, *, stream: bool) -> None:
    with ivl.Client(**known(url)) as client:
        list(client.stream_chat(QUESTION)) if stream else client.chat(QUESTION)


def borrowed(url: str, *, stream: bool) -> None:
    with httpx.Client() as theirs, ivl.Client(**known(url), http_client=theirs) as client:
        list(client.stream_chat(QUESTION)) if stream else client.chat(QUESTION)


def awaited(url: str, *, stream: bool) -> None:
    async def run() -> None:
        async with ivl.AsyncClient(**known(url)) as client:
            if not stream:
                await client.chat(QUESTION)
            async for _ in client.stream_chat(QUESTION):
                pass

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", REPEATS)
def test_what_servers_repeat(
    raw: Raw, caplog: pytest.LogCaptureFixture, said: str, stream: bool
) -> None:
    def talk(connection: socket.socket, _: bytes) -> str:
        connection.sendall(REPEATS[said])
        return "end"

    raw.talk = talk
    with caplog.at_level(logging.INFO), caplog.at_level(logging.DEBUG, "internvl_modal"):
        for ask in (plain, borrowed, awaited):
            with pytest.raises(ivl.ServerError) as caught:
                ask(raw.url, stream=stream)
            shown = [text for text in ways(caught.value) if KEY[:19] in text]
            assert not shown
    assert KEY[:19] not in caplog.text


def test_a_connection_that_is_reset_while_it_is_written_to() -> None:
    """Where a write fails, the bytes of it, key and all, are in the frames of what failed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        resetting = threading.Thread(target=reset, args=(listening,))
        resetting.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        try:
            for number in range(80):
                with pytest.raises(ivl.ServerError) as caught:
                    (plain, awaited)[number % 2](url, stream=False)
                assert not [text for text in ways(caught.value) if KEY[:19] in text]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            resetting.join()


def reset(listening: socket.socket) -> None:
    """Take connections, and end each at once."""
    with contextlib.suppress(OSError):
        while True:
            connection = listening.accept()[0]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def test_user_password_and_query_of_a_url() -> None:
    found = secrets_of("https://me:p%40ssword@h/v1?sig=a%2Fb%2Fc", {"Modal-Secret": "as-12345"})
    assert {"p@ssword", "p%40ssword", "a/b/c", "a%2Fb%2Fc", "as-12345"} <= set(found)
    assert masked("p@ssword as-12345 p%40ssword", found) == "*** *** ***"


def test_words_of_every_day_stay() -> None:
    found = secrets_of("http://h/v1", {"authorization": "Bearer abc", "accept": "text/html"})
    assert masked("Bearer abc of text/html", found) == "Bearer abc of text/html"
