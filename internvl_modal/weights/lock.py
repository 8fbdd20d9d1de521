"""One writer per model: in a folder by flock, on a Modal Volume by an entry of a Modal Dict.

A Volume has no flock, clocks of two containers differ, and what is committed to it is committed
with all that was written: 157 GB take minutes. So who writes there has put its name into a Dict,
where only the first one can, and changes an entry of its own while it lives. Who waits takes the
lock over when, by the waiter's own clock, that entry has not changed for ``STALE`` seconds. A
holder keeps it until it sees another's name there: a commit may take however long it takes, and a
Dict that cannot be reached for a while takes nothing away.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

__all__ = ["Entries", "FolderLock", "Lock", "VolumeLock"]

BEAT = 5.0
"""Seconds between two signs of life."""
STALE = 30.0
"""Seconds: six beats, so that one slow call to Modal costs nobody the lock."""
POLL = 1.0
"""Seconds between two looks of one who waits."""
TELL = 15.0
"""Seconds between two lines that tell of a wait."""
RELEASE = 5.0
"""Seconds that a beat under way may take; one that hangs ends nobody's work."""

logger = logging.getLogger("internvl_modal.weights")


class Lock(Protocol):
    """Held between ``with`` and its end."""

    taker: str
    """Who holds it now, once it was lost; "" before."""

    def __enter__(self) -> Lock:
        """Wait until nobody else holds it."""

    def __exit__(self, *_: object) -> None:
        """Let the next one have it."""


class FolderLock:
    """A lock file with flock, which ends with the process that holds it, however that ends.

    Where a file system has no flock, filelock falls back to a marker file. The file itself stays:
    to remove it would let two hold what they take for the same lock. Raises OSError where it
    cannot be made, or is a link.

    A process that is killed leaves no lock behind, which is why no time is measured here.
    """

    taker = ""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, FileLock(path)

    def __enter__(self) -> FolderLock:
        seconds = 0.0
        while True:
            with suppress(Timeout):
                self._lock.acquire(timeout=seconds)
                return self
            seconds = TELL
            logger.info("waiting for another process that holds %s", self._path)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Entries(Protocol):
    """What a ``modal.Dict`` can do, of which each call is atomic."""

    def put(self, key: str, value: object, *, skip_if_exists: bool = False) -> bool:
        """Write an entry; False where it was there and should be left."""

    def get(self, key: str) -> object:
        """An entry, or None."""

    def pop(self, key: str, default: object) -> object:
        """Remove an entry, and return what it was."""


class VolumeLock:
    """The entry ``name`` of ``entries``; ``lost`` is set once another holds it.

    ``beat``, ``stale`` and ``poll`` are seconds: between two signs of life, until a holder without
    one counts as gone, and between two looks of one who waits. Raises what ``entries`` raises
    while it waits, and nothing while it is held.
    """

    def __init__(
        self,
        entries: Entries,
        name: str,
        *,
        lost: threading.Event,
        beat: float = BEAT,
        stale: float = STALE,
        poll: float = POLL,
    ) -> None:
        self._entries, self._name = entries, name
        self._lost, self._interval, self._stale, self._poll = lost, beat, stale, poll
        # Random, since a process may hold two locks, and container ids may come again.
        self._me = f"{_machine()}, {uuid.uuid4().hex}"
        self.taker = ""
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="weights-lock")

    def __enter__(self) -> VolumeLock:
        self._entries.put(self._life(self._me), 0)
        # The answer to a put may have been lost, and Modal's client have put it again.
        while not self._put() and self._entries.get(self._name) != self._me:
            self._wait()
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._heart.join(RELEASE)
        try:
            if self._entries.get(self._name) == self._me:
                self._entries.pop(self._name, None)
            self._entries.pop(self._life(self._me), None)
        except Exception as error:  # noqa: BLE001 - the work is done, and others wait STALE seconds
            logger.info("the lock %s goes stale: %s", self._name, type(error).__name__)

    @staticmethod
    def _life(holder: object) -> str:
        return f"beat of {holder}"

    def _put(self) -> bool:
        return self._entries.put(self._name, self._me, skip_if_exists=True)

    def _seen(self) -> tuple[object, object]:
        """Who holds the lock, and that one's last sign of life."""
        holder = self._entries.get(self._name)
        return holder, None if holder is None else self._entries.get(self._life(holder))

    def _wait(self) -> None:
        """Return when the lock is free, or was taken from a holder that shows no life."""
        seen, told = self._seen(), -TELL
        since = time.monotonic()
        while seen[0] is not None:
            now = time.monotonic()
            if now - since > self._stale:
                return self._take_away(seen[0])
            if now - told >= TELL:
                told = now
                logger.info("waiting for %s, which holds %s", _who(seen[0]), self._name)
            time.sleep(self._poll)
            if (again := self._seen()) != seen:
                seen, since = again, time.monotonic()

    def _take_away(self, stale: object) -> None:
        """Remove a stale lock; what turns out to be another's is put back.

        Where a third was faster meanwhile, that other sees it with its next beat, and stops.
        """
        logger.info("%s has shown no life and loses %s", _who(stale), self._name)
        removed = self._entries.pop(self._name, None)
        if removed not in (None, stale):
            self._entries.put(self._name, removed, skip_if_exists=True)
        self._entries.pop(self._life(stale), None)

    def _beat(self) -> None:
        """Show life until released; end the work when another holds the lock."""
        beat = 0
        while not self._released.wait(self._interval):
            beat += 1
            with suppress(Exception):  # nobody has the lock because Modal cannot be reached
                holder = self._entries.get(self._name)
                if holder == self._me:
                    self._entries.put(self._life(self._me), beat)
                elif not self._released.is_set():
                    self.taker = _who(holder) if holder is not None else "another container"
                    self._lost.set()
                    return


def _machine() -> str:
    """Name the container, or the process and its machine: for people to read."""
    if task := os.environ.get("MODAL_TASK_ID"):
        return f"the container {task}"
    return f"process {os.getpid()} of {socket.gethostname()}"


def _who(holder: object) -> str:
    return str(holder).rpartition(", ")[0] or "something unreadable"
