"""The deadline is kept within a tenth, whatever trickles, by both clients and by downloads.

All servers trickle at the same time, so that eight seconds are enough for a ratio that means
something on a busy machine.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

import internvl_modal as ivl
from internvl_modal.images.fetch import fetch
from tests.transport.conftest import QUESTION, Raw
from tests.transport.test_deadline import CHUNKED, TRICKLES, trickle

SECONDS = 8.0
KNOWN = ivl.Capabilities()
PATIENT = ivl.Retry(50)


@pytest.fixture
def urls(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Where each kind of server is, up to ``/v1``."""
    found, ended = {}, threading.Event()
    resolve = socket.getaddrinfo

    def hang(host: object, *rest: object, **named: object) -> object:
        if str(host).endswith(".test"):
            ended.wait(60)
        return resolve(host, *rest, **named)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with ExitStack() as stack:
        stack.callback(ended.set)
        kinds = {**TRICKLES, "a stream": (CHUNKED, b"3\r\n: \n\r\n")}
        for kind, (begin, each) in kinds.items():
            raw = stack.enter_context(closing(Raw()))
            # Fifty redirects are followed, and must take longer than the deadline.
            trickle(raw, begin, each, pause=0.4 if kind == "redirects" else 0.05)
            found[kind] = raw.url
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = silent.getsockname()[1]
        found |= {"no answer": f"http://127.0.0.1:{port}/v1", "TLS": f"https://127.0.0.1:{port}/v1"}
        yield {**found, "a name": "http://slow.test/v1"}


def timed(call: Callable[[], object], error: type[Exception]) -> float:
    """Seconds until ``call`` raises ``error``."""
    begun = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - begun


def sync(url: str, retry: ivl.Retry = PATIENT) -> float:
    with ivl.Client(
        base_url=url, model="m", capabilities=KNOWN, timeout=SECONDS, retry=retry
    ) as client:
        return timed(lambda: client.chat(QUESTION), ivl.DeadlineExceededError)


def streamed(url: str) -> float:
    with ivl.Client(base_url=url, model="m", capabilities=KNOWN, timeout=SECONDS) as client:
        return timed(lambda: list(client.stream_chat(QUESTION)), ivl.DeadlineExceededError)


def downloaded(url: str) -> float:
    def call() -> object:
        return fetch(f"{url}/a.png", timeout=SECONDS, allow_private=True)

    return timed(call, ivl.ImageError)


async def awaited(client: ivl.AsyncClient) -> float:
    begun = time.monotonic()
    with pytest.raises(ivl.DeadlineExceededError):
        await client.chat(QUESTION)
    took = time.monotonic() - begun
    await client.aclose()
    return took


async def all_awaited(urls: dict[str, str]) -> dict[str, float]:
    known = {"model": "m", "capabilities": KNOWN, "timeout": SECONDS, "retry": PATIENT}
    clients = [ivl.AsyncClient(base_url=url, **known) for url in urls.values()]  # type: ignore[arg-type]
    return dict(zip(urls, await asyncio.gather(*map(awaited, clients)), strict=True))


def test_within_a_tenth(urls: dict[str, str]) -> None:
    # What is imported at the first call is no part of it.
    with pytest.raises(ivl.ServerUnavailableError):
        sync("http://127.0.0.1:9/v1", ivl.Retry(1))
    # Redirects and errors do not trickle there: they end a download at once, or are tried again.
    downloads = {kind: url for kind, url in urls.items() if kind not in ("redirects", "error")}
    with ThreadPoolExecutor(64) as threads:
        waiting = threads.submit(asyncio.run, all_awaited(urls))
        took = {("sync", kind): threads.submit(sync, url) for kind, url in urls.items()} | {
            ("a stream", kind): threads.submit(streamed, url) for kind, url in urls.items()
        }
        took |= {
            ("download", kind): threads.submit(downloaded, url) for kind, url in downloads.items()
        }
        found = {names: each.result(60) / SECONDS for names, each in took.items()}
        found |= {("async", kind): each / SECONDS for kind, each in waiting.result(60).items()}
    late = {names: ratio for names, ratio in found.items() if not 0.95 < ratio < 1.1}
    assert not late
