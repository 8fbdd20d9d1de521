"""How far a download or a verification is: on a terminal, in a notebook, a log, a callback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from internvl_modal._utils.progress import Bar, View, choose, silent

__all__ = ["CallbackError", "DownloadProgress", "ProgressOption", "Reporter"]

LOG_SECONDS = 5.0


@dataclass(frozen=True)
class DownloadProgress:
    """One moment of a transfer; ``rate`` is bytes per second since the start, ``eta`` seconds.

    Travels from a container as a dictionary, so it holds numbers only.
    """

    task: str
    files: int
    total_files: int
    bytes: int
    total_bytes: int
    rate: float
    eta: float | None

    def __str__(self) -> str:
        eta = "?" if self.eta is None else f"{self.eta:.0f} s"
        return (
            f"{self.task}: {self.files}/{self.total_files} files, "
            f"{_gigabytes(self.bytes)}/{_gigabytes(self.total_bytes)} GB, "
            f"{self.rate / 1e6:.1f} MB/s, ETA {eta}"
        )


ProgressOption: TypeAlias = Literal["auto"] | Callable[[DownloadProgress], None] | None


class CallbackError(Exception):
    """Carries what a callback raised past those who handle errors of the network or the disk.

    Otherwise a caller's own OSError would be taken for a full disk, and tried again.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f}"


class Reporter:
    """Counts files and bytes of one task, from any thread, and tells ``option`` of it.

    "auto" draws a bar on a terminal or in a notebook and writes a line to stderr every few
    seconds elsewhere; None is silent. ``done`` files and ``already`` bytes were there before and
    earn no rate. The last moment is always told, unless an error ends the task.
    """

    def __init__(
        self,
        option: ProgressOption,
        task: str,
        files: int,
        size: int,
        *,
        done: int = 0,
        already: int = 0,
    ) -> None:
        self._lock = threading.Lock()
        self._task, self._total_files, self._total = task, files, size
        self._files, self._bytes, self._already = done, already, already
        self._started = self._told = time.monotonic()
        self._show = _view(option, self._now())

    def advance(self, count: int) -> None:
        """Add ``count`` bytes, or take them back."""
        # Eight threads count; a callback is never called by two at once.
        with self._lock:
            self._bytes += count
            self._tell(force=False)

    def file_done(self) -> None:
        """Count one file as verified."""
        with self._lock:
            self._files += 1
            self._tell(force=False)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._tell(force=True)
        finally:
            self._show.close()

    def _tell(self, *, force: bool) -> None:
        now = time.monotonic()
        # Called for every block of eight threads: what is shown is thinned out here.
        if force or now - self._told >= self._show.every:
            self._told = now
            try:
                self._show.update(self._now())
            except Exception as error:
                raise CallbackError(error) from error

    def _now(self) -> DownloadProgress:
        # What was there before has taken no time, and must not promise a speed.
        rate = (self._bytes - self._already) / max(time.monotonic() - self._started, 1e-3)
        left = self._total - self._bytes
        eta = left / rate if rate > 0 else None if left else 0.0
        return DownloadProgress(
            self._task, self._files, self._total_files, self._bytes, self._total, rate, eta
        )


def _view(option: ProgressOption, first: DownloadProgress) -> View[DownloadProgress]:
    if option is None:
        return silent()

    def bar() -> View[DownloadProgress]:
        return Bar(
            lambda p: p.bytes,
            lambda p: f"{p.files}/{p.total_files} files",
            total=first.total_bytes,
            initial=first.bytes,
            unit="B",
            unit_scale=True,
            desc=first.task,
        )

    return choose(None if option == "auto" else option, bar, lines=LOG_SECONDS)
