"""``describe`` and its like keep what they may, and no longer."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.client import shortcuts
from tests.loopback import Loopback

PICTURE = Image.new("RGB", (9, 9))


class Backend:
    name = "mine"

    def __init__(self, url: str) -> None:
        self.url = url
        self.stopped = 0

    def start(self) -> ivl.Endpoint:
        return ivl.Endpoint(self.url, model="m", capabilities=ivl.Capabilities())

    def stop(self) -> None:
        self.stopped += 1


def test_a_backend_is_kept_no_longer_than_its_caller_keeps_it(loopback: Loopback) -> None:
    backends = [Backend(loopback.url) for _ in range(3)]
    seen = [weakref.ref(backend) for backend in backends]
    for backend in backends * 2:
        ivl.describe(PICTURE, backend=backend)
    assert len(shortcuts._clients) == 3
    backends.clear()
    del backend
    gc.collect()
    assert [each() for each in seen] == [None] * 3
    assert not shortcuts._clients


def test_one_client_serves_a_backend(loopback: Loopback) -> None:
    backend = Backend(loopback.url)
    for _ in range(2):
        ivl.describe(PICTURE, backend=backend)
    (client,) = shortcuts._clients.values()
    shortcuts.close()
    assert backend.stopped == 1
    with pytest.raises(ivl.ConfigError, match="closed"):
        client.describe(PICTURE)


def test_a_backend_without_weak_references(loopback: Loopback) -> None:
    class Slots:
        __slots__ = ()
        name = "slots"

        def start(self) -> ivl.Endpoint:
            return ivl.Endpoint(loopback.url, model="m", capabilities=ivl.Capabilities())

        def stop(self) -> None:
            raise AssertionError("who made it stops it")

    assert ivl.describe(PICTURE, backend=Slots()).text == "A cat."
    assert not shortcuts._clients


def test_a_batch_keeps_its_backend(loopback: Loopback) -> None:
    batch = ivl.describe_many([PICTURE] * 2, backend=Backend(loopback.url), progress=False)
    gc.collect()
    assert [outcome.text for outcome in batch] == ["A cat."] * 2


def test_adescribe_many(loopback: Loopback) -> None:
    async def run() -> list[str | None]:
        batch = shortcuts.adescribe_many([PICTURE] * 3, backend=loopback.url, progress=False)
        texts = [outcome.text async for outcome in batch]
        assert batch.summary.described == 3
        return texts

    assert asyncio.run(run()) == ["A cat."] * 3


def test_a_price_of_a_third_party_does_not_matter(loopback: Loopback) -> None:
    class Planned(Backend):
        plan = object()
        price = "much"
        usd_per_hour = "more"

    batch = ivl.describe_many([PICTURE], backend=Planned(loopback.url), progress=False)
    assert [outcome.ok for outcome in batch] == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")
def test_a_fork_in_the_middle_of_others_calls(loopback: Loopback) -> None:
    script = f"""
import os, threading, internvl_modal as ivl
from PIL import Image
picture = Image.new("RGB", (9, 9))
def ask():
    return ivl.describe(picture, backend={loopback.url!r}).text
ask()  # Python itself deadlocks where another thread imports
stop = threading.Event()
def go_on():
    while not stop.is_set():
        ask()
threads = [threading.Thread(target=go_on) for _ in range(4)]
[each.start() for each in threads]
children = []
for _ in range(5):
    children.append(os.fork())
    if not children[-1]:
        os._exit(ask() != "A cat.")
    ask()
stop.set()
[each.join() for each in threads]
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


class Slow(Backend):
    """Takes its time to start, until it is told to go on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def start(self) -> ivl.Endpoint:
        self.begun.set()
        assert self.go_on.wait(60)
        return super().start()


def test_a_slow_start_holds_up_neither_the_loop_nor_others(loopback: Loopback) -> None:
    async def run() -> None:
        slow = Slow(loopback.url)
        async with ivl.AsyncClient(slow) as client:
            waiting = asyncio.create_task(client.describe(PICTURE))
            while not slow.begun.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.01)
            other = await shortcuts.adescribe(PICTURE, backend=loopback.url)
            assert other.text == "A cat."
            assert not waiting.done()
            slow.go_on.set()
            assert (await waiting).text == "A cat."

    asyncio.run(run())


def test_a_client_that_could_not_be_made_can_be_shown() -> None:
    half: Any = ivl.Client.__new__(ivl.Client)
    assert repr(half) == "Client()"


def test_waiting_no_time_is_no_wait(loopback: Loopback) -> None:
    begun = time.monotonic()
    with ivl.Client(base_url=loopback.url, timeout=300) as client:
        loopback.models = lambda heard: pytest.fail("nothing is asked")
        with pytest.raises(ivl.DeadlineExceededError):
            client.wait_until_ready(0)
    assert time.monotonic() - begun < 100


def test_capabilities_of_ones_own(loopback: Loopback) -> None:
    known = ivl.Capabilities(tile_pixels=224, tokens_per_tile=64, max_tiles=1)
    with ivl.Client(base_url=loopback.url, model="m", capabilities=known) as client:
        assert client.estimate(PICTURE).tokens == 64
        client.describe(PICTURE)
    assert [heard.path for heard in loopback.heard] == ["/v1/chat/completions"]
    with pytest.raises(ivl.ConfigError, match="capabilities is of type dict"):
        ivl.Client(base_url=loopback.url, capabilities={})  # type: ignore[arg-type]
