"""Captions as JSON lines, whole ones only, in a file that one batch at a time may write.

A line a picture is what every tool reads, and appending is the one way of writing in which a kill
can only lose the last line.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sinks.base import SYNC_SECONDS, SeenKeys
from internvl_modal.batch.sinks.files import full, replacing, take
from internvl_modal.batch.sinks.lines import Line, encode, end_of_lines, read_lines, record


class JsonLines(SeenKeys):
    """Appends a line for each outcome; whole lines only, so a reader never sees half of one.

    Also the journal of the other sinks. Its lock is held from ``open`` to ``close``.
    """

    def __init__(self, path: Path, *, resume: bool, retry_errors: bool, named: bool = True) -> None:
        """``named``: by the user, so that a link is meant."""
        super().__init__()
        self._path = Path(os.path.realpath(path)) if named and path.is_symlink() else path
        self._resume, self._retry, self._named = resume, retry_errors, named
        self._descriptor = -1

    def open(self, run: str) -> None:
        """Take the file for this process, mend its end and read its keys."""
        self._run = run
        with full(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = take(self._path, follow=self._named)
            self._size = self._mend()
            if self._retry and self._resume:
                self._forget_failures()
        self._unsynced, self._synced = False, time.monotonic()

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append; if the disk is full, the line that did not fit is taken back."""
        self._renew(outcomes)
        self._append(map(self._line, outcomes))

    def _line(self, outcome: Outcome) -> dict[str, object]:
        """The fields of a line."""
        return record(outcome, self._run, self.content(outcome.identity))

    def _renew(self, outcomes: Sequence[Outcome]) -> None:
        """Drop what is not resumed, once there is something to put in its place."""
        if outcomes and not self._resume:
            self.clear()
            self._resume = True

    def _append(self, documents: Iterable[dict[str, object]], *, sync: bool = False) -> None:
        """Write a line for each, and force them to the disk: at once, or when it is time."""
        data = b"".join(map(encode, documents))
        with full(self._path):
            try:
                _write(self._descriptor, data)
            except OSError:
                # Half a line would be taken for the beginning of the next; whole ones are paid for.
                fitted = os.fstat(self._descriptor).st_size - self._size
                self._size += data.rfind(b"\n", 0, fitted) + 1
                os.ftruncate(self._descriptor, self._size)
                raise
            self._size += len(data)
            self._unsynced = self._unsynced or bool(data)
        if sync or time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        """Force to the disk what is not there yet."""
        if self._unsynced:
            with full(self._path):
                os.fsync(self._descriptor)
        self._unsynced, self._synced = False, time.monotonic()

    def close(self) -> None:
        """Flush the file to the disk and let go of it."""
        if self._descriptor >= 0:
            with full(self._path), contextlib.ExitStack() as stack:
                stack.callback(os.close, self._descriptor)
                self._descriptor, descriptor = -1, self._descriptor
                os.fsync(descriptor)

    def clear(self) -> None:
        """Drop every line; the keys stay known."""
        with full(self._path):
            os.ftruncate(self._descriptor, 0)
        self._size = 0

    def _mend(self) -> int:
        """Note the keys of this run, and cut off a line that was not finished."""
        for line in read_lines(self._path):
            known = self._resume and line.run == self._run
            if known and not (self._retry and line.failed):
                self.note(
                    line.identity, failed=line.failed, earlier=line.earlier, content=line.content
                )
        # What a killed process left of its last line; the picture is asked about again.
        size = end_of_lines(self._path)
        if size < os.fstat(self._descriptor).st_size:  # else it would look newer than it is
            os.ftruncate(self._descriptor, size)
        return size

    def _forget_failures(self) -> None:
        """Write the file anew without this run's failures, which get a line of their own again."""

        def stale(line: Line) -> bool:
            return line.failed and line.run == self._run

        if not any(map(stale, read_lines(self._path))):
            return
        with replacing(self._path) as file:
            file.writelines(line.raw for line in read_lines(self._path) if not stale(line))
            taken = take(Path(file.name), follow=False, told=True)
        os.close(self._descriptor)
        self._descriptor, self._size = taken, os.fstat(taken).st_size


def _write(descriptor: int, data: bytes) -> None:
    """One write; the rest of it where the system took only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
