"""The lock: one holder, and no waiting for the dead."""

from __future__ import annotations

import json
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


def lock(path: Path, lost: threading.Event | None = None, *, shared: bool = False) -> Lock:
    return Lock(path, lost=lost or threading.Event(), beat=0.05, stale=0.5, shared=shared)


def foreign(path: Path, pid: int, machine: str) -> str:
    text = json.dumps(_Holder("other", machine, pid, 0).__dict__)
    path.write_text(text)
    return text


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
    with lock(path, shared=True):
        assert json.loads(path.read_text())["owner"] != "other"
    assert not list(path.parent.glob("model*"))


def test_a_lock_with_a_heartbeat_is_waited_for(path: Path) -> None:
    beats = 20
    foreign(path, 1, "elsewhere")

    def live() -> None:
        for beat in range(beats):
            path.write_text(json.dumps(_Holder("other", "elsewhere", 1, beat).__dict__))
            time.sleep(0.1)
        path.unlink()

    thread = threading.Thread(target=live)
    thread.start()
    with lock(path):
        assert not thread.is_alive() or not path.read_text().count('"other"')
        thread.join()


def test_a_holder_notices_that_it_was_taken_over_and_leaves_the_new_lock(path: Path) -> None:
    lost = threading.Event()
    with lock(path, lost):
        text = foreign(path, 1, "elsewhere")
        assert lost.wait(5)
    assert path.read_text() == text
