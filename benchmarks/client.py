"""The async client against its peers, 64 requests in flight, on one loopback server.

    python benchmarks/client.py [REQUESTS]

The picture is sent as it is (300 KB of JPEG), so that what is measured is the way from a prepared
picture to an answer: encoding the body, the connection pool, reading the answer.
"""

from __future__ import annotations

import asyncio
import base64
import io
import multiprocessing
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import httpx
import numpy as np
import openai
from aiohttp import web
from PIL import Image

import internvl_modal as ivl
from internvl_modal.flows.steps import Blocking

IN_FLIGHT = 64
ANSWER = {
    "model": "internvl",
    "choices": [{"message": {"role": "assistant", "content": "A."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4000, "completion_tokens": 1},
}


def serve(pipe: Connection) -> None:
    """Answer every chat completion at once, in a process of its own."""

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(ANSWER)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "internvl", "owned_by": "lmdeploy"}]})

    async def run() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_get("/v1/models", models)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pipe.send(site._server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(run())


def picture() -> bytes:
    """About 300 KB of JPEG that is sent as it is."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=62)
    return file.getvalue()


async def flood(call: Callable[[], Awaitable[object]], requests: int) -> tuple[float, float]:
    """Requests a second and CPU milliseconds of one, ``IN_FLIGHT`` of them at once."""
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return requests / seconds, 1000 * cpu / requests


class Prepared(ivl.AsyncClient):
    """The client with its pictures already prepared."""

    async def ready(self, data: bytes) -> Callable[[], Awaitable[object]]:
        """A call that only sends and reads."""
        flow = self._core.describe(data, None, {})
        step: Any = next(flow)
        while True:
            if isinstance(step, Blocking):
                step = flow.send(await asyncio.to_thread(step.function))
            elif step.request.method == "GET":
                step = flow.send(await self._transport.send(step))
            else:
                return lambda: self._transport.send(step)


async def measure(url: str, requests: int) -> dict[str, tuple[float, float]]:
    """Every peer in turn."""
    data = picture()
    results = {}
    async with Prepared(base_url=url) as client:
        results["internvl-modal, whole call"] = await flood(lambda: client.describe(data), requests)
        results["internvl-modal, prepared"] = await flood(await client.ready(data), requests)
    async with httpx.AsyncClient() as own, Prepared(base_url=url, http_client=own) as client:
        results["the same over httpx's pool"] = await flood(await client.ready(data), requests // 4)
    async with openai.AsyncOpenAI(base_url=url, api_key="k") as peer:

        async def ask() -> object:
            encoded = base64.b64encode(data).decode()
            part: Any = {
                "type": "image_url",
                "image_url": {"url": "data:image/jpeg;base64," + encoded},
            }
            content: Any = [{"type": "text", "text": "Describe."}, part]
            messages: Any = [{"role": "user", "content": content}]
            return await peer.chat.completions.create(model="internvl", messages=messages)

        results["openai"] = await flood(ask, requests // 4)
    return results


def main() -> None:
    """Print a table."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    print(f"{len(picture()) / 1000:.0f} KB a picture, {IN_FLIGHT} in flight")
    for name, (rate, cpu) in asyncio.run(measure(url, requests)).items():
        print(f"{name:<28} {rate:7.0f} requests/s  {cpu:6.2f} ms of CPU each")
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()
