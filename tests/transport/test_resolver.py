"""A resolver that never answers: it ends with the deadline, and the program does not wait for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HANGING = """
import asyncio, os, socket, threading, time
import httpx
import internvl_modal as ivl

real, asked = socket.getaddrinfo, []

def hang(host, *rest, **named):
    host = host.decode() if isinstance(host, bytes) else host
    if str(host).endswith(".test"):
        asked.append(host)
        threading.Event().wait()
    return real(host, *rest, **named)

socket.getaddrinfo = hang
question = [{"role": "user", "text": "hi"}]
known = {"model": "m", "capabilities": ivl.Capabilities(), "timeout": 3}

def sync():
    ivl.Client(base_url="http://slow.test/v1", **known).chat(question)

def stream():
    list(ivl.Client(base_url="http://slow.test/v1", **known).stream_chat(question))

def asynchronous():
    async def run():
        async with ivl.AsyncClient(base_url="http://slow.test/v1", **known) as client:
            await client.chat(question)
    asyncio.run(run())

def picture():
    ivl.Client(base_url="http://127.0.0.1:9/v1", **known).describe("http://slow.test/a.png")

def by_a_proxy():
    os.environ["ALL_PROXY"] = "socks5://slow.test:1080"
    ivl.Client(base_url="http://192.0.2.1/v1", **known).chat(question)

def behind_a_proxy():
    os.environ["ALL_PROXY"] = "socks5://127.0.0.1:1080"
    ivl.Client(base_url="http://slow.test/v1", **known).chat(question)

def by_an_own_client():
    known["http_client"] = httpx.Client()
    ivl.Client(base_url="http://slow.test/v1", **known).chat(question)

def by_an_own_async_client():
    async def run():
        known["http_client"] = httpx.AsyncClient()
        try:
            await ivl.AsyncClient(base_url="http://slow.test/v1", **known).chat(question)
        except ivl.InternVLError as error:
            print(type(error).__name__, time.monotonic() - begun, asked, flush=True)
            os._exit(0)  # asyncio.run would wait for the thread of httpx's that asks
    asyncio.run(run())

begun = time.monotonic()
try:
    CALL()
except ivl.InternVLError as error:
    print(type(error).__name__, time.monotonic() - begun, asked, flush=True)
"""
ENDS = {
    "sync": "DeadlineExceededError",
    "stream": "DeadlineExceededError",
    "asynchronous": "DeadlineExceededError",
    "picture": "ImageError",
    "by_a_proxy": "DeadlineExceededError",
    "behind_a_proxy": "DeadlineExceededError",
    "by_an_own_client": "DeadlineExceededError",
    "by_an_own_async_client": "DeadlineExceededError",
}


@pytest.mark.parametrize("call", ENDS)
def test_a_resolver_that_hangs(call: str) -> None:
    if "proxy" in call:
        pytest.importorskip("aiohttp_socks", reason="pip install 'internvl-modal[socks]'")
    with subprocess.Popen(
        [sys.executable, "-c", HANGING.replace("CALL", call)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        kind, _, asked = child.stdout.readline().split(maxsplit=2)
        try:
            assert child.wait(60) == 0
        finally:
            child.kill()
    assert "slow.test" in asked
    assert kind == ENDS[call]
