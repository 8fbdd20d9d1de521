"""Where outcomes are written, and what an earlier run left there.

A sink is used from one thread, but for ``has``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from internvl_modal.batch.lines import Line, end_of_lines, read_lines
from internvl_modal.batch.outcome import Outcome, encode, key_hash, record
from internvl_modal.errors import ConfigError, InternVLError

__all__ = ["REFUSED", "Callback", "JsonLines", "Keys", "Sink", "beside", "full", "replacing"]

SYNC_SECONDS = 5.0
"""What a power cut may cost; a killed process loses nothing that was written."""
REFUSED = {
    errno.EACCES, errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EISDIR,
    errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM,
}  # fmt: skip
"""What systems say to a name that they do not take, where another may do."""


class Sink(Protocol):
    """Takes outcomes and knows those of earlier runs of the same fingerprint."""

    def open(self, run: str) -> None:
        """Find what is there, and remove none of it; ``run`` is the fingerprint."""
        ...

    def has(self, key: str) -> bool:
        """Whether ``key`` needs no work; asked once for each input, it also notes the key."""
        ...

    def has_failed(self, key: str) -> bool:
        """Whether an earlier run recorded that ``key`` failed."""
        ...

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep them all, or raise; with none, every ``SYNC_SECONDS``, while nothing is done."""
        ...

    def close(self) -> None:
        """Make them last."""
        ...


class Keys:
    """Which keys were seen, in about 70 bytes each."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._failed: set[int] = set()

    def note(self, key: str, *, failed: bool = False) -> None:
        """Keep ``key``."""
        mark = key_hash(key)
        self._seen.add(mark)
        if failed:
            self._failed.add(mark)

    def has_failed(self, key: str) -> bool:
        """Whether ``key`` was noted as failed."""
        return key_hash(key) in self._failed

    def has(self, key: str) -> bool:
        """Whether ``key`` was seen; it is from now on."""
        mark = key_hash(key)
        known = mark in self._seen
        self._seen.add(mark)
        return known


class JsonLines(Keys):
    """Appends a line for each outcome; whole lines only, so a reader never sees half of one."""

    def __init__(self, path: Path, *, resume: bool, retry_errors: bool) -> None:
        super().__init__()
        self._path, self._resume, self._retry = path, resume, retry_errors
        self._descriptor = -1

    def open(self, run: str) -> None:
        """Take the file for this process, mend its end and read its keys."""
        self._run = run
        with full(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _take(self._path)
            self._size = self._mend()
            if self._retry and self._resume:
                self._forget_failures()
        self._unsynced, self._synced = False, time.monotonic()

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append; if the disk is full, what fitted of it is taken back."""
        self._renew(outcomes)
        self._append(record(outcome, self._run) for outcome in outcomes)

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
                self.note(line.key, failed=line.failed)
        size = end_of_lines(self._path)
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
            taken = _take(Path(file.name))
        os.close(self._descriptor)
        self._descriptor, self._size = taken, os.fstat(taken).st_size


class Callback:
    """Calls a function with each outcome, from one thread; nothing is remembered."""

    def __init__(self, call: Callable[[Outcome], object]) -> None:
        self._call = call

    def open(self, run: str) -> None:
        """Nothing is there."""

    def has(self, key: str) -> bool:
        """Every input is work."""
        return False

    def has_failed(self, key: str) -> bool:
        """Nothing is known."""
        return False

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Call it; what it raises stops the batch."""
        for outcome in outcomes:
            self._call(outcome)

    def close(self) -> None:
        """Nothing is held."""


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """Turn what the disk says into an error that names the file."""
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        if error.errno in (*REFUSED, errno.EROFS):
            raise ConfigError(message, hint="choose another out=") from error
        hint = "make room or choose another out=; the same call goes on where this one stopped"
        raise InternVLError(message, hint=hint) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once it is on the disk."""
    new = beside(path)
    with new.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def beside(path: Path) -> Path:
    """Where a file is written that takes the place of ``path``."""
    return path.with_name(f".{path.name}.new")


def _write(descriptor: int, data: bytes) -> None:
    """One write; the rest of it where the system took only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _take(path: Path) -> int:
    """Open for appending and lock, so that no other batch writes the same file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        pass
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another batch is writing {path}", hint="wait for it, or choose another out="
        ) from error
    return descriptor


_BINARY = getattr(os, "O_BINARY", 0)
