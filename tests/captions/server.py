"""A model server that answers some pictures badly: python -m tests.captions.server [--bad 0.1].

Which pictures, in which of ten ways, and from which temperature on they are answered well follows
from their bytes, so that a test knows it too. It prints its port; ``GET /log`` tells of every
request: the picture's digest, its temperature, its max_tokens, the prompt and what was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
from typing import Any

from aiohttp import web

from tests.loopback import completion, models_list

WAYS = (
    "empty", "refusal", "one-word", "cut", "repetition", "leftover", "thinking", "language",
    "opener", "same-text",
)  # fmt: skip
SAME = "A stuck server says this of every picture that it is asked about."


def digest_of(body: bytes) -> str:
    picture = body.partition(b";base64,")[2].partition(b'"')[0]
    return hashlib.blake2b(picture, digest_size=8).hexdigest()


def bad_way(digest: str, share: float) -> str | None:
    """In which way a picture is answered badly, if it is."""
    draw = random.Random(digest)
    return draw.choice(WAYS) if draw.random() < share else None


def cure(digest: str) -> float:
    """The temperature from which on it is answered well; 9 for never."""
    return random.Random(digest + "cure").choice([0.2, 0.2, 0.5, 0.8, 9.0])


def bad(way: str, digest: str) -> tuple[str, str]:
    """The text and its finish reason."""
    thing = f"thing {digest}"
    return {
        "empty": ("", "stop"),
        "refusal": ("I'm sorry, but I can't help with that image.", "stop"),
        "one-word": ("Thing.", "stop"),
        "cut": (f"A red {thing} stands on a table next to a", "length"),
        "repetition": (f"A {thing}. " + "It is red and it is round. " * 30, "length"),
        "leftover": (f"A red {thing} stands on a table.<|im_end|>", "stop"),
        "thinking": (f"Okay, the user wants me to describe the image. It shows a {thing}.", "stop"),
        "language": ("Ein rotes Ding steht auf dem Tisch neben einer alten Lampe.", "stop"),
        "opener": (f"This image shows a red {thing} on a table.", "stop"),
        "same-text": (SAME, "stop"),
    }[way]


class Server:
    def __init__(self, share: float, slow: float) -> None:
        self.share, self.slow = share, slow
        self.log: list[dict[str, Any]] = []

    async def chat(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = await request.json()
        if self.slow:
            await asyncio.sleep(self.slow)
        digest = digest_of(raw)
        temperature = body.get("temperature") or 0.0
        text, finish = f"A red thing {digest} stands on a wooden table.", "stop"
        way = bad_way(digest, self.share)
        if way is not None and temperature < cure(digest):
            text, finish = bad(way, digest)
        self.log.append({"picture": digest, "temperature": temperature, "text": text})
        return web.json_response(completion(text, finish=finish))

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(models_list())

    async def report(self, request: web.Request) -> web.Response:
        found, self.log = self.log, []
        return web.json_response(found)


async def main(share: float, slow: float) -> None:
    server = Server(share, slow)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/log", server.report)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bad", type=float, default=0.1)
    parser.add_argument("--slow", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(main(given.bad, given.slow))
