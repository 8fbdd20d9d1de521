"""The lock: one holder, and no waiting for the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from internvl_modal.weights.lock import Lock, _Holder, _machine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.lock"


def lock(path: Path, lost: threading.Event | None = None) -> Lock:
    """One that beats often, and that nobody takes for stale where a beat is late."""
    return Lock(path, lost=lost or threading.Event(), beat=0.05, stale=60)


def foreign(path: Path, pid: int, machine: str) -> str:
    text = json.dumps(_Holder("other", machine, pid, 0).__dict__)
    path.write_text(text)
    return text


def take_over(path: Path, lost: threading.Event) -> str:
    """Write another's name until the holder sees it: a heartbeat may replace the first."""
    for _ in range(100):
        text = foreign(path, 1, "elsewhere")
        if lost.wait(0.2):
            return text
    raise AssertionError("the holder has not noticed")


def test_only_one_is_inside(path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with lock(path):
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
    assert not list(path.parent.glob("model*"))


def test_a_dead_process_of_this_machine_is_not_waited_for(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    foreign(path, process.pid, _machine())
    patient = Lock(path, lost=threading.Event(), stale=1000)
    with patient:
        assert json.loads(path.read_text())["owner"] != "other"


@pytest.mark.parametrize("content", ["holder", "", "not json"])
def test_a_lock_that_does_not_change_is_taken_over(path: Path, content: str) -> None:
    foreign(path, 1, "elsewhere") if content == "holder" else path.write_text(content)
    lost = threading.Event()
    with Lock(path, shared=True, lost=lost, beat=0.05, stale=0.5):
        assert json.loads(path.read_text())["owner"] != "other"
    # Whose own heart stood still for as long leaves the lock to others.
    assert lost.is_set() or not list(path.parent.glob("model*"))


def test_a_lock_with_a_heartbeat_is_waited_for(path: Path) -> None:
    """Twice as long as a lock without one."""
    foreign(path, 1, "elsewhere")
    released = threading.Event()

    def live() -> None:
        for beat in range(40):
            path.write_text(json.dumps(_Holder("other", "elsewhere", 1, beat).__dict__))
            time.sleep(0.1)
        released.set()
        path.unlink()

    thread = threading.Thread(target=live)
    thread.start()
    with Lock(path, lost=threading.Event(), stale=2):
        assert released.is_set()
    thread.join()


def test_a_failed_heartbeat_is_made_up_for(path: Path) -> None:
    pushes: list[bool] = []
    healed, lost = threading.Event(), threading.Event()

    def push() -> None:
        pushes.append(1 < len(pushes) < 4)
        if pushes[-1]:
            raise RuntimeError("the commit failed")
        if len(pushes) > 4:
            healed.set()

    with Lock(path, lost=lost, push=push, beat=0.01, stale=60):
        assert healed.wait(30)
        assert not lost.is_set()
    assert not list(path.parent.glob("model*"))


@pytest.mark.parametrize("way", ["error", "hang"])
def test_a_holder_that_cannot_commit_counts_the_lock_as_lost_and_leaves_it(
    path: Path, way: str
) -> None:
    """Even while a commit hangs: what others see may be the lock of another."""
    lost, over, pushes = threading.Event(), threading.Event(), [1]

    def push() -> None:
        if pushes:
            pushes.pop()
        elif way == "hang":
            over.wait(60)
        else:
            raise OSError("the commit failed")

    with Lock(path, shared=True, lost=lost, push=push, beat=0.05, stale=0.5):
        assert lost.wait(20)
    assert not over.is_set()
    assert path.exists()
    over.set()


def test_a_lock_of_this_machine_is_lost_only_to_another(path: Path) -> None:
    """Not by a heartbeat that failed for long, as on a full disk or in a stopped process."""
    lost, failing, pushes = threading.Event(), threading.Event(), [1]

    def push() -> None:
        if pushes:
            pushes.pop()
        else:
            failing.set()
            raise OSError("no space left")

    with Lock(path, lost=lost, push=push, beat=0.05, stale=0.2):
        assert failing.wait(20)
        assert not lost.wait(1)
        text = take_over(path, lost)
    assert path.read_text() == text


def test_what_claims_killed_midway_left_is_swept(path: Path) -> None:
    old, young = (path.with_name(f"other.lock.{digit * 32}") for digit in "ab")
    kept = path.with_name("another.lock")
    for file in (old, young, kept):
        file.write_text("")
    for file in (old, kept):
        os.utime(file, (0, 0))
    with lock(path):
        pass
    assert sorted(path.parent.glob("*other*")) == sorted([kept, young])


def test_windows_processes_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, the signal 0 is Ctrl-C."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    holder = _Holder("other", _machine(), process.pid, 0)
    assert holder.is_dead()
    monkeypatch.setattr(sys, "platform", "win32")
    assert not holder.is_dead()


def test_a_holder_notices_that_it_was_taken_over_and_leaves_the_new_lock(path: Path) -> None:
    lost = threading.Event()
    with lock(path, lost):
        text = take_over(path, lost)
    assert path.read_text() == text
