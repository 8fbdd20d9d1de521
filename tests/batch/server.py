"""A fast model server in a process of its own: python -m tests.batch.server [--fail 0.05 ...].

It prints its port. ``GET /log`` returns the pictures asked about since the last time, by the
hash of their base64, with the status each got; ``POST /set`` changes what it does.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
from typing import Any

from aiohttp import web

from tests.loopback import completion, models_list


class Server:
    """``slots`` requests take ``latency`` seconds each; the others wait in line.

    None is answered before ``together`` were there at once.
    """

    def __init__(self, **how: Any) -> None:
        self.how = {
            "fail": 0.0,
            "latency": 0.0,
            "slots": 0,
            "together": 0,
            "status": 200,
            "until": 0,
            "retry_after": "",
            **how,
        }
        self.log: list[tuple[str, int]] = []
        self.most = self.now = 0
        self.arrived = asyncio.Condition()
        self.random = random.Random(4)
        self.slots = asyncio.Semaphore(int(self.how["slots"]) or 100_000)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            async with self.arrived:
                self.arrived.notify_all()
                await self.arrived.wait_for(lambda: self.most >= self.how["together"])
            async with self.slots:
                if self.how["latency"]:
                    await asyncio.sleep(self.how["latency"])
        finally:
            self.now -= 1
        picture = body.partition(b";base64,")[2].partition(b'"')[0]
        name = hashlib.blake2b(picture, digest_size=8).hexdigest()
        status = self.how["status"]
        if status != 200 and self.how["until"]:
            self.how["until"] -= 1
            if not self.how["until"]:
                self.how["status"] = 200
        if self.random.random() < self.how["fail"]:
            status = self.random.choice([500, 503, 502, 0])
        self.log.append((name, status))
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        if status != 200:
            headers = (
                {"retry-after": str(self.how["retry_after"])} if self.how["retry_after"] else {}
            )
            return web.json_response(
                {"error": {"message": "no"}}, status=status or 500, headers=headers
            )
        return web.json_response(completion(f"It is {name}."))

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(models_list())

    async def report(self, request: web.Request) -> web.Response:
        found = {"log": self.log, "most": self.most}
        self.log, self.most = [], 0
        return web.json_response(found)

    async def set(self, request: web.Request) -> web.Response:
        self.how.update(json.loads(await request.read()))
        return web.json_response(self.how)


async def main(how: dict[str, Any]) -> None:
    server = Server(**how)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/log", server.report)
    app.router.add_post("/set", server.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("fail", "latency"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=0)
    asyncio.run(main(vars(parser.parse_args())))
