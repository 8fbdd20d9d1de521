"""A console that is poor or gone costs no answer, and exit codes tell of the books."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.batch.conftest import Fast, lines
from tests.loopback import Loopback, Reply, completion, event

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")

TEXT = "一只猫"


def shell(arguments: str, after: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m internvl_modal {arguments} {after}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def running() -> Iterator[Fast]:
    started = Fast()
    yield started
    started.end()


@pytest.mark.parametrize("stream", ["", "--stream"])
def test_an_answer_that_the_console_cannot_show(
    loopback: Loopback, pictures: Callable[[int], Path], stream: str
) -> None:
    chunk = {"choices": [{"delta": {"content": TEXT}, "finish_reason": "stop"}]}
    streamed = event(chunk) + b"data: [DONE]\n\n"
    loopback.will(
        Reply(body=streamed, headers={"content-type": "text/event-stream"})
        if stream
        else Reply(body=completion(TEXT))
    )
    picture = next(pictures(1).iterdir())
    done = shell(
        f"describe {picture} --base-url {loopback.url} --model m {stream}",
        PYTHONIOENCODING="cp1252",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == TEXT.encode("ascii", "backslashreplace").decode()


def test_nobody_pays_for_an_answer_that_nobody_can_read(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    picture = next(pictures(1).iterdir())
    done = shell(f"describe {picture} --base-url {loopback.url} --model m", ">&-")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output is closed")
    assert not loopback.heard


@pytest.mark.parametrize("after", [">&-", "2>&-", ">&- 2>&-", "> /dev/full 2> /dev/full", "2>&1 | true; exit ${PIPESTATUS[0]}"])  # fmt: skip
def test_a_batch_goes_on_without_a_console(
    running: Fast, pictures: Callable[[int], Path], after: str
) -> None:
    folder = pictures(20)
    (folder / "broken.png").write_bytes(b"")
    batch = f"batch {folder} --out out.jsonl --base-url {running.url} --model m"
    done = shell(batch, after)
    assert done.returncode == 1
    assert len(lines(Path("out.jsonl"))) == 21
    assert "Traceback" not in done.stdout + done.stderr
    (folder / "broken.png").unlink()
    assert shell(batch.replace("out.jsonl", "other.jsonl"), after).returncode == 0
    assert sum("text" in line for line in lines(Path("other.jsonl"))) == 20


def test_names_that_the_console_cannot_show(running: Fast, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("猫.png", "x\udce9.png"):
        (folder / name).write_bytes(b"")
    done = shell(
        f"batch {folder} --out out.jsonl --base-url {running.url} --model m",
        PYTHONIOENCODING="cp1252",
    )
    assert done.returncode == 1
    assert done.stderr.count("ImageError") == 2
    assert "0 described, 2 failed" in done.stdout
