"""One way to describe pictures, in a process of its own; prints its figures as JSON.

    python -m benchmarks.ways WAY URL KEY FOLDER PICTURES

``batch`` and its kinds are this package's ``describe_many``, ``loop`` is what one writes with the
``openai`` package instead, both from files to a file of captions; for ``batch-before`` the pictures
were brought to their grid before it begins. ``calls``, ``threads`` and ``openai`` are single calls
with a picture in memory. ``shrink-1`` and ``shrink-2`` bring pictures to their grid in so many
threads, and ask nobody. ``local`` is a batch through the bundled engine with the model beside
FOLDER, ``local-raw`` the same requests to such an engine, two at once, by plain HTTP; ``demo`` and
``demo-raw`` are the same with the demo model.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

IN_FLIGHT = 64
THREADS = 32
TOKENS = 32
"""Of an answer of a local model, which writes noise for as long as it may."""


class Meter:
    """Seconds, and those of the processor, since it was started."""

    def start(self) -> None:
        """From here on; what came before warmed up."""
        self._wall, self._cpu = time.perf_counter(), self._used()

    def report(self, count: int) -> dict[str, float]:
        """Pictures a second, and CPU milliseconds of one."""
        wall, cpu = time.perf_counter() - self._wall, self._used() - self._cpu
        return {"rate": count / wall, "cpu_ms": 1000 * cpu / count}

    @staticmethod
    def _used() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime


def pairs(folder: Path, count: int) -> Iterator[tuple[str, str]]:
    """So many keys with files, over and over."""
    files = sorted(map(str, folder.iterdir()))
    return ((f"{index}.jpg", files[index % len(files)]) for index in range(count))


def batch(meter: Meter, url: str, key: str, folder: Path, count: int, shrink: Any) -> None:
    """``describe_many`` from files to a ``.jsonl``."""
    import internvl_modal as ivl

    with tempfile.TemporaryDirectory() as out, ivl.Client(base_url=url, api_key=key) as client:
        if shrink == "before":
            folder, shrink = shrunk(folder, Path(out) / "shrunk"), "never"
        warm = pairs(folder, min(count, IN_FLIGHT))  # as ``flood`` does
        list(client.describe_many(warm, concurrency=IN_FLIGHT, shrink=shrink))
        meter.start()
        outcomes = client.describe_many(
            pairs(folder, count),
            out=f"{out}/captions.jsonl",
            concurrency=IN_FLIGHT,
            progress=False,
            shrink=shrink,
        )
        described = sum(outcome.ok for outcome in outcomes)
    assert described == count


def shrunk(folder: Path, into: Path) -> Path:
    """The pictures, as they would be sent."""
    from internvl_modal.images import prepare

    into.mkdir()
    for file in folder.iterdir():
        (into / file.name).write_bytes(prepare(file).payload)
    return into


def local_model(folder: Path, way: str) -> Any:
    """The demo model, or the decoder and the vision part that lie beside ``folder``."""
    if way.startswith("demo"):
        return "demo"
    return tuple(sorted((folder.parent / "model").iterdir(), key=lambda file: len(file.name)))


def local(meter: Meter, folder: Path, count: int, model: Any) -> None:
    """``describe_many`` with a model whose engine answers one after the other."""
    import internvl_modal as ivl
    from internvl_modal.backends.local import LocalBackend

    with tempfile.TemporaryDirectory() as out, ivl.Client(LocalBackend(model)) as client:
        list(client.describe_many(pairs(folder, 2), max_tokens=TOKENS))
        meter.start()
        done = list(
            client.describe_many(
                pairs(folder, count), out=f"{out}/captions.jsonl", max_tokens=TOKENS
            )
        )
    assert sum(outcome.ok for outcome in done) == count


def local_raw(meter: Meter, folder: Path, count: int, model: Any) -> None:
    """The same requests, made beforehand."""
    import httpx

    from internvl_modal.backends.local import LocalBackend
    from internvl_modal.images import prepare
    from internvl_modal.protocol.dialects.registry import dialect_of

    backend = LocalBackend(model)
    endpoint = backend.start()
    assert endpoint.capabilities is not None
    tiling = dialect_of(endpoint.capabilities).tiling(endpoint.capabilities, "medium")
    sent = [prepare(Path(path), tiling=tiling) for _, path in pairs(folder, count)]
    bodies = [
        json.dumps(question(endpoint.model or "", each.payload, TOKENS, each.info.sent_format))
        for each in sent
    ]
    headers = {**endpoint.headers, "content-type": "application/json"}
    try:
        with (
            httpx.Client(base_url=f"{endpoint.base_url}/", headers=headers, timeout=60) as http,
            ThreadPoolExecutor(2) as pool,
        ):

            def ask(body: str) -> str:
                answer = http.post("chat/completions", content=body).raise_for_status()
                text: str = answer.json()["choices"][0]["message"]["content"]
                return text

            for asked in (bodies[:2], bodies):
                meter.start()
                assert all(pool.map(ask, asked))
    finally:
        backend.stop()


def question(
    model: str, data: bytes, tokens: int = 1024, kind: str = "image/jpeg"
) -> dict[str, Any]:
    """What ``describe`` asks, for the ``openai`` package."""
    url = f"data:{kind};base64," + base64.b64encode(data).decode()
    picture = {"type": "image_url", "image_url": {"url": url}}
    text = {"type": "text", "text": "Describe this image in detail."}
    messages = [{"role": "user", "content": [picture, text]}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0}


async def flood(meter: Meter, count: int, ask: Callable[[int], Awaitable[object]]) -> None:
    """``ask`` so many times, ``IN_FLIGHT`` at once; as many before, to warm up."""

    async def worker(numbers: Iterator[int]) -> None:
        for number in numbers:
            await ask(number)

    for total in (min(count, IN_FLIGHT), count):
        meter.start()
        numbers = iter(range(total))
        await asyncio.gather(*(worker(numbers) for _ in range(IN_FLIGHT)))


async def loop(meter: Meter, url: str, key: str, folder: Path, count: int) -> None:
    """The plain loop, from files to a file."""
    import openai

    listed = list(pairs(folder, count))
    async with openai.AsyncOpenAI(base_url=url, api_key=key, timeout=600) as peer:
        model = (await peer.models.list()).data[0].id
        with tempfile.TemporaryFile("w") as out:

            async def ask(number: int) -> None:
                name, path = listed[number]
                asked = question(model, Path(path).read_bytes())  # noqa: ASYNC240 - a plain loop
                answer = await peer.chat.completions.create(**asked)
                text = answer.choices[0].message.content
                out.write(json.dumps({"key": name, "text": text}) + "\n")

            await flood(meter, count, ask)


async def single(meter: Meter, url: str, key: str, data: bytes, count: int) -> None:
    """``AsyncClient.describe`` with a picture in memory."""
    import internvl_modal as ivl

    async with ivl.AsyncClient(base_url=url, api_key=key) as client:
        await flood(meter, count, lambda _: client.describe(data))


async def single_openai(meter: Meter, url: str, key: str, data: bytes, count: int) -> None:
    """The same with the ``openai`` package."""
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key=key, timeout=600) as peer:
        model = (await peer.models.list()).data[0].id

        async def ask(_: int) -> object:
            return await peer.chat.completions.create(**question(model, data))

        await flood(meter, count, ask)


def threads(meter: Meter, url: str, key: str, data: bytes, count: int) -> None:
    """One ``Client`` in so many threads."""
    import internvl_modal as ivl

    with ivl.Client(base_url=url, api_key=key) as client, ThreadPoolExecutor(THREADS) as pool:
        for total in (2 * THREADS, count):
            meter.start()
            list(pool.map(lambda _: client.describe(data), range(total)))


def shrink(meter: Meter, data: bytes, count: int, most: int) -> None:
    """Bring a picture to its grid so often, in so many threads."""
    from internvl_modal.images import prepare

    with ThreadPoolExecutor(most) as pool:
        for total in (2 * most, count):
            meter.start()
            list(pool.map(lambda _: prepare(data), range(total)))


def prepare(folder: Path, count: int) -> dict[str, float]:
    """Only what is done to the picture itself: the least of several."""
    from internvl_modal.images import prepare

    data = next(folder.iterdir()).read_bytes()
    used = []
    for _ in range(count):
        begun = time.process_time()
        prepare(data)
        used.append(time.process_time() - begun)
    return {"cpu_ms": 1000 * min(used)}


def main() -> None:
    """Go one way."""
    global IN_FLIGHT  # noqa: PLW0603
    way, url, key, given, number = sys.argv[1:]
    meter, folder, count = Meter(), Path(given), int(number)
    if way.startswith("batch"):
        batch(meter, url, key, folder, count, way.partition("-")[2] or "auto")
    elif way == "loop":
        asyncio.run(loop(meter, url, key, folder, count))
    elif way.startswith("prepare"):
        if way == "prepare-plain":
            sys.modules["cv2"] = None  # type: ignore[assignment] # as if the extra were not there
        print(json.dumps(prepare(folder, count)))
        return
    elif way.startswith("shrink"):
        data = next(folder.iterdir()).read_bytes()
        shrink(meter, data, count, int(way.partition("-")[2]))
    elif way.startswith(("local", "demo")):
        go = local_raw if way.endswith("raw") else local
        go(meter, folder, count, local_model(folder, way))
    elif way == "threads":
        threads(meter, url, key, next(folder.iterdir()).read_bytes(), count)
    else:
        if way == "calls-32":
            IN_FLIGHT = THREADS
        ask = single_openai if way == "openai" else single
        asyncio.run(ask(meter, url, key, next(folder.iterdir()).read_bytes(), count))
    print(json.dumps(meter.report(count)))


if __name__ == "__main__":
    main()
