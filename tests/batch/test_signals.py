"""Ctrl-C and SIGTERM while a batch starts, and where several are under way."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import internvl_modal as ivl
from tests.batch.conftest import Fast, lines
from tests.loopback import Heard, Loopback, Reply, models_list

SYNC = "for outcome in ivl.Client({backend}).describe_many([b'1']): pass"
ASYNC = """
import asyncio

async def main():
    async with ivl.AsyncClient({backend}) as client:
        async for outcome in client.describe_many([b"1"]):
            pass

asyncio.run(main())
"""
SLOW = """
import threading, sys
import internvl_modal as ivl

class Slow:
    name = "slow"

    def start(self):
        print("starts", flush=True)
        threading.Event().wait(300)

    def stop(self):
        pass

"""


@contextmanager
def run(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("many", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_backend_that_starts_is_not_waited_for(many: str) -> None:
    with run(SLOW + many.format(backend="Slow()")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "starts\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, errors


@pytest.mark.parametrize(
    "many",
    [SYNC, ASYNC.replace("]", "], resume=False, out='out.jsonl'")],
    ids=["sync", "async"],
)
def test_a_server_that_does_not_answer_is_not_waited_for(loopback: Loopback, many: str) -> None:
    asked, over = threading.Event(), threading.Event()

    def hang(_: Heard) -> Reply:
        asked.set()
        over.wait(100)
        return Reply(body=models_list())

    loopback.models = hang
    with run(SLOW + many.format(backend=repr(loopback.url))) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            over.set()
    assert process.returncode == -signal.SIGTERM, errors
    assert "finishing what is under way" in errors
    assert ("goes on from here" in errors) == ("out=" in many)


TWO = """
import sys
import internvl_modal as ivl
url, folder = sys.argv[1:]
client = ivl.Client(base_url=url)
first, second = (
    client.describe_many(folder, out=name, detail=1, concurrency=4) for name in ("a.jsonl", "b.jsonl")
)
for one, two in zip(first, second):
    print("taken", flush=True)
"""
TWO_IN_A_LOOP = """
import asyncio, sys
import internvl_modal as ivl
url, folder = sys.argv[1:]

async def main():
    async with ivl.AsyncClient(base_url=url) as client:
        begun = set()

        async def each(name):
            async for outcome in client.describe_many(folder, out=name, detail=1, concurrency=4):
                begun.add(name)
                if len(begun) == 2:
                    print("taken", flush=True)

        await asyncio.gather(each("a.jsonl"), each("b.jsonl"))

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("code", [TWO, TWO_IN_A_LOOP], ids=["sync", "async"])
def test_a_signal_stops_all_batches(
    fast: Callable[..., Fast], pictures: Callable[[int], Path], number: int, code: str
) -> None:
    server = fast("--latency", "0.3")
    with run(code, server.url, pictures(200)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -number, errors
    asked = len(server.report()["log"])
    assert asked == len(lines(Path("a.jsonl"))) + len(lines(Path("b.jsonl"))) < 400


def test_batches_that_overlap_leave_the_handlers_as_they_were(
    fast: Callable[..., Fast], pictures: Callable[[int], Path]
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with ivl.Client(base_url=fast().url) as client:
        first, second = (client.describe_many(pictures(50), detail=1) for _ in range(2))
        next(first), next(second)
        assert signal.getsignal(signal.SIGINT) != before[0]
        first.close()  # type: ignore[attr-defined]
        assert signal.getsignal(signal.SIGINT) != before[0]
        list(second)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


LEFT = """
import sys
import internvl_modal as ivl
outcomes = ivl.Client(base_url=sys.argv[1]).describe_many(sys.argv[2], detail=1)
print(next(outcomes).ok)
"""


def test_a_batch_that_was_left_alone_does_not_keep_the_process(
    fast: Callable[..., Fast], pictures: Callable[[int], Path]
) -> None:
    with run(LEFT, fast().url, pictures(300)) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "True\n"), errors


ELSEWHERE = """
import os, signal, sys, threading
import internvl_modal as ivl
url, folder, how, number = sys.argv[1:]
outcomes = ivl.Client(base_url=url).describe_many(folder, detail=1)
next(outcomes)
thread = threading.Thread(target=list if how == "ended" else type(outcomes).close, args=[outcomes])
thread.start()
thread.join()
if how == "again":
    outcomes = ivl.Client(base_url=url).describe_many(folder, detail=1)
    list(outcomes)
    assert signal.getsignal(int(number)) in (signal.SIG_DFL, signal.default_int_handler)
print("ended", flush=True)
os.kill(os.getpid(), int(number))
threading.Event().wait(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["ended", "closed", "again"])
def test_a_batch_that_ends_in_another_thread_leaves_signals_as_they_were(
    fast: Callable[..., Fast], pictures: Callable[[int], Path], how: str, number: int
) -> None:
    with run(ELSEWHERE, fast().url, pictures(30), how, int(number)) as process:
        output, errors = process.communicate(timeout=50)
    assert (process.returncode, output) == (-number, "ended\n"), errors
    assert "goes on from here" not in errors
    assert "RecursionError" not in errors


PUT_BACK = """
import os, signal, sys, threading
import internvl_modal as ivl
url, folder, number = sys.argv[1:]
outcomes = ivl.Client(base_url=url).describe_many(folder, detail=1)
next(outcomes)
found = signal.signal(int(number), print)
list(outcomes)
signal.signal(int(number), found)
os.kill(os.getpid(), int(number))
threading.Event().wait(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_handler_that_was_put_back_late_obeys_the_signal(
    fast: Callable[..., Fast], pictures: Callable[[int], Path], number: int
) -> None:
    with run(PUT_BACK, fast().url, pictures(30), int(number)) as process:
        _, errors = process.communicate(timeout=50)
    assert process.returncode == -number, errors
    assert "RecursionError" not in errors
