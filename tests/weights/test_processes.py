"""Processes that are killed, interrupted, or that want the same model at once."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from internvl_modal.weights import WeightsCache, layout
from tests.loopback_hub import BLOCK, Fault, LoopbackHub
from tests.weights.conftest import NEEDED, REPO, noise

MANY = "OpenGVLab/InternVL2_5-78B"
CHUNK = 1 << 20
SMALL, LARGE = 50_000, 6_000_000


class ForkServer:
    """Runs ``ensure`` in processes that can be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, *arguments: object) -> int:
        """Begin and return the process id."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def result(self) -> str:
        return self._line()

    def wait_for_log(self, line: str) -> None:
        assert self._process.stderr
        assert self._process.stderr.readline().strip() == line

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.weights.fork_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield ForkServer(process)
        assert process.stdin
        process.stdin.close()


def thirty_files() -> dict[str, bytes]:
    shards = {
        f"model-{index:05}-of-00028.safetensors": noise(SMALL if index % 4 else LARGE, index)
        for index in range(1, 29)
    }
    return {"config.json": b"{}", "tokenizer.json": noise(3000), **shards}


def persisted(root: Path) -> dict[str, int]:
    """Bytes on the disk of every file that is under way, and -1 for a verified one."""
    found = {}
    for path in (root / ".partial").rglob("*"):
        if path.is_file():
            part = path.suffix == ".part"
            found[path.name.removesuffix(".part")] = path.stat().st_size if part else -1
    return found


def test_killed_fifty_times(root: Path) -> None:
    """Every run goes on exactly where the disk says the last one stopped."""
    with LoopbackHub(rate=30e6) as hub, fork_server() as server:
        hub.commit(MANY, thirty_files())
        cache, dice = WeightsCache(root, endpoint=hub.url), random.Random(7)
        starts: list[int] = []
        for number in range(50):
            before, sent = persisted(root), dict(hub.sent)
            hub.requests.clear()
            # What comes before the kill is less than all there is, however late the kill is.
            if number == 0:
                hub.faults = [Fault("cdn", stall_after=CHUNK)]
                child = server.start(root, hub.url, MANY)
                wait_for_verified_and_begun(root)
                hub.faults = []
            elif dice.random() < 0.2:
                hub.allow(600_000)
                child = server.start(root, hub.url, MANY)
                time.sleep(dice.random() * 0.03)
            else:
                count = dice.randrange(10_000, 700_000)
                hub.allow(count + 200_000)
                child = server.start(root, hub.url, MANY)
                wait_for_bytes(hub, count)
            os.kill(child, signal.SIGKILL)
            assert server.result() == ""
            starts += check_requests(hub, before)
            check_lost(hub, sent, before, persisted(root))
            assert not any(entry.complete for entry in cache.list())
        before = persisted(root)
        hub.requests.clear()
        hub.allow(math.inf)
        server.start(root, hub.url, MANY)
        assert server.result() == "complete: 30"
        starts += check_requests(hub, before)
        assert any(starts)
        assert any(size == -1 for size in before.values())
        assert cache.verify(MANY, deep=True).ok


def test_killed_around_its_end(hub: LoopbackHub, tmp_path: Path) -> None:
    """What looks complete after a kill is complete."""
    dice = random.Random(11)
    outcomes = set()
    with fork_server() as server:
        for number in range(20):
            root = tmp_path / str(number)
            hub.allow(700_000 if number == 0 else math.inf)  # 5,000 less than all
            child = server.start(root, hub.url, REPO)
            wait_for_bytes(hub, 600_000 if number == 0 else 690_000)
            time.sleep(dice.random() * 0.04)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            outcomes.add(server.result())
            hub.allow(math.inf)
            cache = WeightsCache(root, endpoint=hub.url)
            whole = [entry for entry in cache.list() if entry.complete]
            assert all(cache.verify(entry.model, entry.commit, deep=True).ok for entry in whole)
            assert cache.ensure(REPO, progress=None).files == NEEDED
            assert cache.verify(REPO, deep=True).ok
    assert "" in outcomes


def wait_for_bytes(hub: LoopbackHub, count: int) -> None:
    """Return when so many bytes have left the Hub since the last request list was cleared."""
    start = sum(hub.sent.values())
    deadline = time.monotonic() + 20
    while sum(hub.sent.values()) - start < count and time.monotonic() < deadline:
        time.sleep(0.001)


def wait_for_verified_and_begun(root: Path) -> None:
    """Return when the disk holds a verified file, and a part of a large one."""
    sizes: dict[str, int] = {}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):  # renamed meanwhile
            sizes = persisted(root)
            if -1 in sizes.values() and any(SMALL < n < LARGE for n in sizes.values()):
                return
        time.sleep(0.001)
    raise AssertionError(sizes)


def check_requests(hub: LoopbackHub, before: dict[str, int]) -> list[int]:
    """Where each download began: where the last run's bytes on the disk end."""
    requests = hub.downloads("^/cdn")
    for request in requests:
        assert request.start == before.get(Path(request.path).name, 0), request.path
    return [request.start for request in requests]


def check_lost(
    hub: LoopbackHub, sent: dict[str, int], before: dict[str, int], after: dict[str, int]
) -> None:
    """What was sent but is not on the disk is less than a chunk a file, buffers included."""
    for path, total in hub.sent.items():
        name = Path(path).name
        if after.get(name) != -1:
            gained = after.get(name, 0) - max(before.get(name, 0), 0)
            assert total - sent.get(path, 0) - gained <= CHUNK + 64 * BLOCK, path


def test_interrupted(root: Path) -> None:
    with LoopbackHub(rate=2e6) as hub, fork_server() as server:
        hub.commit(MANY, thirty_files())
        child = server.start(root, hub.url, MANY)
        wait_for_bytes(hub, 500_000)
        os.kill(child, signal.SIGINT)
        assert server.result() == (
            f"interrupted: {MANY}: interrupted (run this again: it continues where it stopped)"
        )
        before = persisted(root)
        assert before
        hub.rate = None
        hub.requests.clear()
        server.start(root, hub.url, MANY)
        assert server.result() == "complete: 30"
        check_requests(hub, before)


def test_interrupted_while_it_waits_for_the_lock(hub: LoopbackHub, root: Path) -> None:
    lock = root / layout.lock_file(REPO)
    lock.parent.mkdir(parents=True)
    with FileLock(lock), fork_server() as server:
        child = server.start(root, hub.url, REPO)
        server.wait_for_log(f"waiting for another process that holds {lock}")
        os.kill(child, signal.SIGINT)
        assert server.result().startswith(f"interrupted: {REPO}: interrupted (run this again")
    assert not hub.requests


def test_interrupted_while_the_hub_is_asked(hub: LoopbackHub, root: Path) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        answer.wait(60)

    hub.faults.append(Fault("revision/main", times=1, then=hold))
    with fork_server() as server:
        child = server.start(root, hub.url, REPO)
        assert asked.wait(60)
        os.kill(child, signal.SIGINT)
        assert server.result().startswith(f"interrupted: {REPO}: interrupted (run this again")
        answer.set()
        server.start(root, hub.url, REPO)
        assert server.result() == f"complete: {len(NEEDED)}"


def test_two_processes_download_once(hub: LoopbackHub, cache: WeightsCache, root: Path) -> None:
    hub.rate = 2e6
    with ExitStack() as stack:
        servers = [stack.enter_context(fork_server()) for _ in range(2)]
        for server in servers:
            server.start(root, hub.url, REPO)
        assert [server.result() for server in servers] == [f"complete: {len(NEEDED)}"] * 2
    assert sorted(Path(request.path).name for request in hub.downloads("^/cdn")) == sorted(
        name for name in NEEDED if name.endswith("safetensors") or name == "tokenizer.json"
    )
    assert cache.verify(REPO, deep=True).ok
