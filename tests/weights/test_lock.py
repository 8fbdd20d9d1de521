"""The locks: one holder, and no waiting for the dead."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from internvl_modal.weights.lock import FolderLock, Lock, VolumeLock

NAME = "weights/owner/model"


class Entries:
    """A ``modal.Dict`` as far as its documentation goes: each call atomic, some of them fail."""

    def __init__(self) -> None:
        self.held: dict[str, object] = {}
        self.calls: list[str] = []
        self.down = threading.Event()
        self._lock = threading.Lock()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.down.is_set():
            raise ConnectionError

    def put(self, key: str, value: object, *, skip_if_exists: bool = False) -> bool:
        self._call("put")
        with self._lock:
            if skip_if_exists and key in self.held:
                return False
            self.held[key] = value
            return True

    def get(self, key: str) -> object:
        self._call("get")
        with self._lock:
            return self.held.get(key)

    def pop(self, key: str, default: object) -> object:
        self._call("pop")
        with self._lock:
            return self.held.pop(key, default)


@pytest.fixture
def entries() -> Entries:
    return Entries()


def volume_lock(
    entries: Entries, lost: threading.Event | None = None, *, stale: float = 60
) -> VolumeLock:
    return VolumeLock(
        entries, NAME, lost=lost or threading.Event(), beat=0.05, stale=stale, poll=0.02
    )


@pytest.fixture(params=["folder", "volume"])
def make(request: pytest.FixtureRequest, tmp_path: Path, entries: Entries) -> Callable[[], Lock]:
    if request.param == "folder":
        return lambda: FolderLock(tmp_path / "model.lock")
    return lambda: volume_lock(entries)


def test_only_one_is_inside(make: Callable[[], Lock]) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with make():
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.05)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


HOLD = """
import sys, time
from pathlib import Path
from internvl_modal.weights.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "model.lock")],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        with suppress(ProcessLookupError):
            process.kill()


def test_a_killed_process_holds_no_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    with FolderLock(tmp_path / "model.lock"):
        assert holder.wait() == -signal.SIGKILL


def test_who_waits_for_a_folder_says_so(
    tmp_path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "internvl_modal")
    waiting = threading.Thread(target=enter, args=(FolderLock(tmp_path / "model.lock"),))
    waiting.start()
    while not caplog.messages:
        time.sleep(0.01)
    holder.kill()
    waiting.join()
    path = tmp_path / "model.lock"
    assert caplog.messages[0] == f"waiting for another process that holds {path}"


def enter(lock: Lock) -> None:
    with lock:
        pass


@pytest.mark.parametrize("content", ["", '{"pid": "x"}', "\0" * 100, '{"owner": "../x", "pid": 1}'])
def test_what_a_lock_file_holds_means_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "model.lock"
    path.write_text(content)
    enter(FolderLock(path))
    assert path.read_text() == content


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "model.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"model\.lock"):
        enter(FolderLock(tmp_path / "model.lock"))
    assert not (tmp_path / "victim").exists()


def test_a_lock_of_filelocks_own_is_the_same_lock(tmp_path: Path) -> None:
    with FileLock(tmp_path / "model.lock"):
        waiting = threading.Thread(target=enter, args=(FolderLock(tmp_path / "model.lock"),))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join()


def test_what_takes_long_keeps_the_lock(entries: Entries) -> None:
    """Another waits meanwhile for several times what makes a silent holder stale."""
    lost, order = threading.Event(), []

    def second() -> None:
        with volume_lock(entries, stale=0.4):
            order.append("second")

    with volume_lock(entries, lost, stale=0.4):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(2)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert not lost.is_set()
    assert entries.held == {}


def test_a_dict_that_cannot_be_reached_takes_no_lock_away(entries: Entries) -> None:
    lost = threading.Event()
    with volume_lock(entries, lost, stale=0.2):
        entries.down.set()
        failed = len(entries.calls) + 10
        while len(entries.calls) < failed:
            time.sleep(0.01)
        entries.down.clear()
        healed = len(entries.calls) + 4
        while len(entries.calls) < healed:
            time.sleep(0.01)
        assert not lost.is_set()
    assert entries.held == {}


def test_a_dict_that_is_gone_at_the_end_ends_no_work(
    entries: Entries, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "internvl_modal")
    with volume_lock(entries):
        entries.down.set()
    assert caplog.messages == [f"the lock {NAME} goes stale: ConnectionError"]


@pytest.mark.parametrize("holder", ["the container ta-1, 0", 7, {"pid": "x"}, ""])
def test_a_holder_without_a_sign_of_life_is_gone(
    entries: Entries, holder: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "internvl_modal")
    entries.held[NAME] = holder
    enter(volume_lock(entries, stale=0.3))
    assert entries.held == {}
    who = "the container ta-1" if holder == "the container ta-1, 0" else "something unreadable"
    assert caplog.messages == [
        f"waiting for {who}, which holds {NAME}",
        f"{who} has shown no life and loses {NAME}",
    ]


def test_of_many_that_wait_for_the_dead_one_comes_after_the_other(entries: Entries) -> None:
    entries.held[NAME] = "the container ta-1, 0"
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with volume_lock(entries, stale=0.3):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.1)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4
    assert entries.held == {}


def test_a_holder_sees_who_took_its_lock_and_leaves_it(entries: Entries) -> None:
    lost = threading.Event()
    with volume_lock(entries, lost) as lock:
        assert lock.taker == ""
        entries.held[NAME] = "the container ta-9, 0"
        assert lost.wait(20)
    assert lock.taker == "the container ta-9"
    assert entries.held == {NAME: "the container ta-9, 0"}


def test_a_put_whose_answer_was_lost_is_not_anothers(
    entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modal's client puts again, and is told that there is an entry: its own."""
    put = entries.put

    def twice(key: str, value: object, *, skip_if_exists: bool = False) -> bool:
        put(key, value, skip_if_exists=skip_if_exists)
        return put(key, value, skip_if_exists=skip_if_exists)

    monkeypatch.setattr(entries, "put", twice)
    enter(volume_lock(entries))
    assert entries.held == {}
