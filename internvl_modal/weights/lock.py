"""One writer per model, on any file system: a lock file with a heartbeat.

Modal Volumes have no ``flock``, and clocks of two containers differ. So a lock is a file whose
content changes while its holder lives; who waits takes it over when, by the waiter's own clock,
it has not changed for ``STALE`` seconds, or at once when the holder was a process of this machine
that is gone. A holder that could not commit a change for as long counts it as lost; where all see
the same file, it is lost once it names another.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

__all__ = ["Lock"]

BEAT = 5.0
STALE = 30.0
POLL = 0.2
SETTLE = 3.0
"""Seconds until whoever saw no lock before our commit has made theirs."""
LEFT_AFTER = 3600.0
CLAIM = re.compile(r"\.[0-9a-f]{32}$")


@dataclass(frozen=True)
class _Holder:
    owner: str
    machine: str
    pid: int
    beat: int

    def is_dead(self) -> bool:
        """True only for a process of this machine that no longer runs."""
        if self.machine != _machine() or sys.platform == "win32":  # where kill ends what it asks
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def _machine() -> str:
    """Name this boot and process-id space; without Linux's, nothing that another could share."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()}/{uuid.getnode()}"


class Lock:
    """Held between ``with`` and its end; ``lost`` is set when another may hold it meanwhile.

    ``pull`` and ``push`` exchange the file with other machines where a file system needs that
    (a Modal Volume); ``shared`` says that it does, and that process ids mean nothing. ``beat`` and
    ``stale`` are seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        shared: bool = False,
        pull: Callable[[], None] = lambda: None,
        push: Callable[[], None] = lambda: None,
        lost: threading.Event,
        beat: float = BEAT,
        stale: float = STALE,
    ) -> None:
        self._path, self._shared, self._pull, self._push = path, shared, pull, push
        self._lost, self._interval, self._stale = lost, beat, stale
        self._me = _Holder(uuid.uuid4().hex, _machine(), os.getpid(), 0)
        self._released, self._gone = threading.Event(), False
        self._heart = threading.Thread(target=self._beat, daemon=True, name="weights-lock")

    def __enter__(self) -> Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while not self._taken():
            self._wait()
        self._sweep()
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        while self._heart.is_alive() and not self._gone:  # a commit can hang
            self._heart.join(POLL)
        if self._mine() and not self._gone:
            self._path.with_suffix(".beat").unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            self._push()

    def _taken(self) -> bool:
        """Create the lock file; on a Volume the last commit wins, so look who that was."""
        self._pull()
        if not self._claim(self._path):
            return False
        self._push()
        if self._shared:
            time.sleep(SETTLE)
        self._pull()
        return self._mine()

    def _claim(self, path: Path) -> bool:
        """Create ``path`` with our name in it; whole at once where there are hard links."""
        name = json.dumps(asdict(self._me))
        fresh = path.with_name(f"{path.name}.{self._me.owner}")
        try:
            fresh.write_text(name)
            os.link(fresh, path)
        except FileExistsError:
            return False
        except OSError:
            return self._claim_without_links(path, name)
        finally:
            fresh.unlink(missing_ok=True)
        return True

    @staticmethod
    def _claim_without_links(path: Path, name: str) -> bool:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w") as file:
                file.write(name)
        except OSError:  # a full disk: without a name in it, others would wait for it to go stale
            path.unlink(missing_ok=True)
            raise
        return True

    def _read(self, path: Path | None = None) -> _Holder | None:
        try:
            return _Holder(**json.loads((path or self._path).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _is_dead(self, holder: _Holder | None) -> bool:
        return holder is not None and not self._shared and holder.is_dead()

    def _mine(self) -> bool:
        holder = self._read()
        return holder is not None and holder.owner == self._me.owner

    def _wait(self) -> None:
        """Return when the lock is gone, or was stale and is ours to take away."""
        seen, since = self._read(), time.monotonic()
        while self._path.exists():
            if self._is_dead(seen) or time.monotonic() - since > self._stale:
                self._break(seen)
                return
            time.sleep(POLL)
            self._pull()
            if (now := self._read()) != seen:
                seen, since = now, time.monotonic()

    def _break(self, stale: _Holder | None) -> None:
        """Remove a stale lock; of several waiters only the one that makes the marker may."""
        marker = self._path.with_suffix(f".{stale.owner if stale else 'unreadable'}")
        if not self._claim(marker):
            # Its maker may have died here too: then the marker ages as a lock does.
            with contextlib.suppress(FileNotFoundError):
                old = time.time() - marker.stat().st_mtime > self._stale
                if old or self._is_dead(self._read(marker)):
                    marker.unlink(missing_ok=True)
            time.sleep(POLL)
            return
        if self._read() == stale:
            self._path.unlink(missing_ok=True)
        marker.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what claims of any model have left that were killed within their milliseconds."""
        for path in self._path.parent.iterdir():
            with contextlib.suppress(OSError):
                if CLAIM.search(path.name) and time.time() - path.stat().st_mtime > LEFT_AFTER:
                    path.unlink()

    def _beat(self) -> None:
        """Change the file until released; a failure may pass, so only the alarm ends this."""
        beat, alarm = 0, self._alarm()
        while not self._released.wait(self._interval):
            if not self._mine():
                self._lose()
                break
            beat += 1
            next_alarm = self._alarm()
            try:
                self._change(beat)
            except Exception:  # noqa: BLE001 - a full disk, or whatever a commit raises
                next_alarm.cancel()
            else:
                alarm.cancel()
                alarm = next_alarm
        alarm.cancel()

    def _alarm(self) -> threading.Timer:
        """Look when others may take a lock that changes no more; a commit can hang."""
        timer = threading.Timer(self._stale, self._overdue)
        timer.daemon = True
        timer.start()
        return timer

    def _overdue(self) -> None:
        """Others may not see what our file says here; else it tells whether one came."""
        if self._shared or not self._mine():
            self._lose()

    def _lose(self) -> None:
        self._gone = True
        self._lost.set()

    def _change(self, beat: int) -> None:
        fresh = self._path.with_suffix(".beat")
        fresh.write_text(json.dumps(asdict(replace(self._me, beat=beat))))
        fresh.replace(self._path)
        self._push()
