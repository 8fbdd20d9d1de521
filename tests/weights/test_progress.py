"""How far it is: to a callback, in lines, as a bar."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from internvl_modal.errors import WeightsError
from internvl_modal.weights import WeightsCache, progress
from internvl_modal.weights.progress import DownloadProgress
from tests.loopback_hub import Fault, LoopbackHub
from tests.weights.conftest import NEEDED, REPO, model_files

TOTAL = sum(len(model_files()[name]) for name in NEEDED)


def test_progress_reaches_a_callback(cache: WeightsCache) -> None:
    seen: list[DownloadProgress] = []
    cache.ensure(REPO, progress=seen.append)
    check_end(seen)
    seen.clear()
    assert cache.verify(REPO, deep=True, progress=seen.append).ok
    check_end(seen)


def check_end(seen: list[DownloadProgress]) -> None:
    assert seen[-1].bytes == seen[-1].total_bytes == TOTAL
    assert seen[-1].files == seen[-1].total_files == len(NEEDED)
    assert seen[-1].eta == 0


def test_progress_of_what_was_there_before(hub: LoopbackHub, cache: WeightsCache) -> None:
    """Left by a stopped download, then linked."""
    hub.faults.append(Fault("model-00002", status=403))
    with pytest.raises(WeightsError):
        cache.ensure(REPO, progress=None)
    hub.faults.clear()
    resumed: list[DownloadProgress] = []
    cache.ensure(REPO, progress=resumed.append)
    check_end(resumed)
    commit = hub.commit(REPO, {**model_files(), "README.md": b"new"})
    linked: list[DownloadProgress] = []
    cache.ensure(REPO, commit, progress=linked.append)
    check_end(linked)


@pytest.mark.parametrize("kind", [ConnectionError, RuntimeError, OSError, ValueError])
@pytest.mark.parametrize("verb", ["ensure", "verify"])
def test_an_error_of_the_callback_comes_out_as_it_is(
    hub: LoopbackHub, cache: WeightsCache, kind: type[Exception], verb: str
) -> None:
    """From a download it ends that at once: a callback can cancel."""
    cause, error = KeyError("cause"), kind("the window is closed")

    def fail(_: DownloadProgress) -> None:
        raise error from cause

    if verb == "verify":
        cache.ensure(REPO, progress=None)
    with pytest.raises(kind) as caught:
        if verb == "ensure":
            cache.ensure(REPO, progress=fail)
        else:
            cache.verify(REPO, deep=True, progress=fail)
    assert caught.value is error
    assert caught.value.__cause__ is cause
    assert cache.ensure(REPO, progress=None).files == NEEDED


def test_a_callback_ends_a_download(hub: LoopbackHub, cache: WeightsCache) -> None:
    hub.rate = 100_000
    calls: list[DownloadProgress] = []

    def fail(now: DownloadProgress) -> None:
        calls.append(now)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.ensure(REPO, progress=fail)
    assert calls[0].bytes < TOTAL
    assert len(calls) <= len(NEEDED)


def test_progress_is_lines_where_no_terminal_is(
    cache: WeightsCache, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.ensure(REPO)
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"Fetching {REPO}: 6/6 files")
    assert "ETA 0 s" in line


def test_lines_come_on_the_way_too(
    cache: WeightsCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    cache.ensure(REPO)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > len(NEEDED)
    assert "0/6 files" in lines[0]
    assert "6/6 files" in lines[-1]


@pytest.mark.parametrize("kind", ["none", "closed", "broken"])
def test_a_standard_error_that_is_gone_stops_nothing(
    cache: WeightsCache, root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        text = io.TextIOWrapper(pipe, write_through=True)
        monkeypatch.setattr(sys, "stderr", None if kind == "none" else text)
        if kind == "closed":
            text.close()
        assert cache.ensure(REPO).files == NEEDED
        monkeypatch.undo()


def test_progress_is_a_bar_on_a_terminal(hub: LoopbackHub, root: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    code = "import sys; from internvl_modal import WeightsCache; WeightsCache(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", f"{code}.ensure({REPO!r})", str(root)],
        env={**os.environ, "HF_ENDPOINT": hub.url},
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert f"Fetching {REPO}: 100%" in shown
    assert "6/6 files" in shown
