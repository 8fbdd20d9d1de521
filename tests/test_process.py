"""Children: their output, readiness, end, and what happens to them when the parent dies."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from internvl_modal._utils.child_process import ChildProcess
from internvl_modal.errors import ConfigError, WeightsError

SLEEP = "import time; print('up', flush=True); time.sleep(600)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def group(pid: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                if os.getpgid(int(entry.name)) == pid:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[ChildProcess]:
    process = ChildProcess(python(request.param), name="worker")
    yield process
    process.stop(grace=0.5)


@pytest.mark.parametrize("child", [SLEEP], indirect=True)
def test_stop_ends_the_whole_group_and_may_be_repeated(child: ChildProcess) -> None:
    child.wait_ready(lambda: "up" in child.tail(), timeout=20, error=WeightsError)
    assert child.pid in group(child.pid)
    assert child.poll() is None
    child.stop()
    child.stop()
    assert child.poll() == -signal.SIGTERM
    wait_until(lambda: group(child.pid) == [])


IGNORES_TERM_AND_FORKS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("child", [IGNORES_TERM_AND_FORKS], indirect=True)
def test_a_stubborn_child_and_its_own_children_are_killed(child: ChildProcess) -> None:
    child.wait_ready(lambda: child.tail().count("up") == 2, timeout=20, error=WeightsError)
    child.stop(grace=0.1)
    assert child.poll() == -signal.SIGKILL
    wait_until(lambda: group(child.pid) == [])


DIES = "import sys; print('one'); print('cannot open sesame', file=sys.stderr); sys.exit(3)"


@pytest.mark.parametrize("child", [DIES], indirect=True)
def test_a_child_that_ends_early_is_an_error_with_its_last_words(child: ChildProcess) -> None:
    with pytest.raises(WeightsError, match=r"worker ended with code 3 .*\none\ncannot open sesame"):
        child.wait_ready(lambda: False, timeout=20, error=WeightsError)
    assert child.poll() == 3


@pytest.mark.parametrize("child", [DIES], indirect=True)
def test_last_words_are_not_lost_where_the_log_is_slow(child: ChildProcess) -> None:
    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "worker: one":
                time.sleep(1.1)

    log, slow = logging.getLogger("internvl_modal._utils.child_process"), Slow()
    log.addHandler(slow)
    log.setLevel(logging.INFO)
    try:
        with pytest.raises(WeightsError, match="cannot open sesame"):
            child.wait_ready(lambda: False, timeout=20, error=WeightsError)
    finally:
        log.removeHandler(slow)
        log.setLevel(logging.NOTSET)


@pytest.mark.parametrize("child", [SLEEP], indirect=True)
def test_a_child_that_is_never_ready_is_an_error_and_still_runs(child: ChildProcess) -> None:
    with pytest.raises(WeightsError, match=r"not ready within 0\.2 s"):
        child.wait_ready(lambda: False, timeout=0.2, error=WeightsError)
    assert child.poll() is None


TALKS = "import sys; [print(i) for i in range(1000)]; sys.stdout.write('x' * 9999 + '\\n')"


@pytest.mark.parametrize("child", [TALKS], indirect=True)
def test_the_tail_is_bounded(child: ChildProcess) -> None:
    wait_until(lambda: child.poll() is not None and "xx" in child.tail(1))
    lines = child.tail(10_000).split("\n")
    assert len(lines) == 200
    assert max(map(len, lines)) == 4096
    assert child.tail(5).startswith("998\n999\nxx")


def test_secrets_are_masked_in_tail_log_and_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "internvl_modal._utils.child_process")
    child = ChildProcess(
        [*python("import sys; sys.exit('bad key ' + sys.argv[1])"), "s3cret"],
        name="worker",
        redact=["", "s3cret"],
    )
    with pytest.raises(WeightsError, match=r"bad key \*\*\*") as caught:
        child.wait_ready(lambda: False, timeout=20, error=WeightsError)
    child.stop()
    assert "worker: bad key ***" in caplog.text
    assert "s3cret" not in caplog.text + str(caught.value) + repr(child) + child.tail()


def test_environment_and_missing_command(tmp_path: Path) -> None:
    child = ChildProcess(
        python("import os; print(sorted(os.environ))"), env={"ONLY": "1"}, name="worker"
    )
    wait_until(lambda: "ONLY" in child.tail())
    assert "HOME" not in child.tail()
    child.stop()
    with pytest.raises(ConfigError, match="'no-such-command' was not found"):
        ChildProcess(["no-such-command"], name="worker")
    with pytest.raises(ConfigError, match="was not found"):
        ChildProcess(["ls"], env={"PATH": str(tmp_path)}, name="worker")


def test_a_command_line_that_cannot_be_passed_leaves_nothing_open() -> None:
    before = open_files()
    with pytest.raises(ValueError, match="null byte"):
        ChildProcess([sys.executable, "\0"], name="worker")
    assert open_files() <= before  # others may be closed meanwhile


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return found


def test_the_child_outlives_the_thread_that_started_it() -> None:
    started: list[ChildProcess] = []
    thread = threading.Thread(
        target=lambda: started.append(ChildProcess(python(SLEEP), name="worker"))
    )
    thread.start()
    thread.join()
    child = started[0]
    child.wait_ready(lambda: "up" in child.tail(), timeout=20, error=WeightsError)
    with pytest.raises(WeightsError, match="not ready"):
        child.wait_ready(lambda: False, timeout=0.3, error=WeightsError)
    assert child.poll() is None
    child.stop()


PARENT = """
import os, sys, time
from internvl_modal._utils.child_process import ChildProcess
child = ChildProcess([sys.executable, "-c", "import time; time.sleep(600)"], name="worker")
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)  # a worker that inherits every descriptor and outlives its parent
print(child.pid, flush=True)
if "exit" in sys.argv:
    os._exit(0)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["kill", "exit", "fork"])
def test_children_end_with_a_parent_however_it_ends(how: str) -> None:
    parent = subprocess.Popen(
        [*python(PARENT), how], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        if how != "exit":
            wait_until(lambda: len(group(pid)) == 2)
            parent.kill()
        parent.wait(20)
        wait_until(lambda: group(pid) == [])
    finally:
        for orphan in group(parent.pid):
            os.kill(orphan, signal.SIGKILL)
        parent.wait(20)
        parent.stdout.close()
