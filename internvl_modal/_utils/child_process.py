"""Child processes that end with their parent and whose last words can be read.

For servers that hold a GPU or gigabytes of memory: one that outlives its parent, be that killed
outright, costs money or blocks the next start. ``child_launcher`` sees to the end, this file to the
log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess  # nosec B404  # lists of arguments only, never a shell
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from internvl_modal.errors import ConfigError, InternVLError

__all__ = ["ChildProcess"]

log = logging.getLogger(__name__)

_KEPT_LINES = 200
_LONGEST_LINE = 4096
_LAST_WORDS = 5.0
"""Seconds to read them; what a dead command has started may hold its output open."""
_LAUNCHER = Path(__file__).with_name("child_launcher.py")


class ChildProcess:
    """A running command in a process group of its own, killed when this process ends in any way.

    Its output is kept as a short tail and passed on, line by line, to this module's logger at
    level INFO, and to ``on_line``; every string in ``redact`` is masked in all.

    Raises ConfigError if the command does not exist or the system is not a POSIX one.

    ``poll``, ``tail`` and ``stop`` may be called from any thread. ``on_line`` is called in the
    thread that reads the output: what it raises ends the reading, so it must not raise.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        name: str,
        redact: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._on_line = on_line
        self._redact = [secret for secret in redact if secret]
        # Bounded: a server may write for weeks. Appending is atomic, so readers need no lock.
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        executable = _find(argv[0], os.environ if env is None else env, name)
        # The launcher's watcher holds one end of this pipe and sees the other end close.
        watched, held = os.pipe()
        try:
            self._process = _launch([executable, *argv[1:]], env, watched)
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(watched)
        self._held = held
        self._reader = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<ChildProcess {self.name!r} pid={self.pid} exit_code={self.poll()}>"

    @property
    def pid(self) -> int:
        """The command's process id, which is also its process group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code (minus the signal's number if killed), or None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 20) -> str:
        """Return the last lines it wrote to standard output and error."""
        return "\n".join(list(self._tail)[-lines:])

    def wait_ready(
        self, probe: Callable[[], bool], *, timeout: float, error: type[InternVLError]
    ) -> None:
        """Return when ``probe`` does so with true; ``timeout`` is in seconds.

        Raises ``error`` with the log's tail when the process ends first or time is up; the
        process is left as it is.
        """
        deadline = time.monotonic() + timeout
        # A tiny model is up in a third of a second, a large one in minutes: the pause grows with
        # the wait, to a tenth of it.
        pause = 0.02
        while not probe():
            if (code := self.poll()) is not None:
                self._reader.join(_LAST_WORDS)
                raise error(self._failure(f"ended with code {code} before it was ready"))
            if time.monotonic() >= deadline:
                raise error(self._failure(f"was not ready within {timeout:g} s"))
            time.sleep(pause)
            pause = min(pause * 1.1, 0.5)

    def stop(self, grace: float = 5.0) -> None:
        """End it: ask, wait ``grace`` seconds, then kill what is left of its process group."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # The group is killed in any case: workers that ignore the signal would keep the GPU.
            self._process.wait(grace)
        # A second ``stop`` must not kill a group whose number the system has given to another
        # since.
        if self._held < 0:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._held)
        self._held = -1
        self._reader.join(timeout=1)

    def _failure(self, what: str) -> str:
        """What happened, with the last lines that it wrote, where it wrote any."""
        tail = self.tail()
        return f"{self.name} {what}" + (f"; its last lines:\n{tail}" if tail else "")

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None  # nosec B101  # a pipe was asked for: for the type checker
        with stream:
            # A progress bar writes megabytes without a newline: it comes in pieces of this length.
            for line in iter(lambda: stream.readline(_LONGEST_LINE), ""):
                text = line.rstrip()
                for secret in self._redact:
                    text = text.replace(secret, "***")
                self._tail.append(text)
                log.info("%s: %s", self.name, text)
                if self._on_line is not None:
                    self._on_line(text)


def _launch(argv: Sequence[str], env: Mapping[str, str] | None, pipe: int) -> subprocess.Popen[str]:
    """Start the launcher, which becomes the command; ``pipe`` is the end that its watcher holds.

    A session of its own keeps Ctrl-C in a terminal from reaching it: its parent decides when it
    ends.
    """
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(pipe), str(os.getpid())]
    return subprocess.Popen(  # nosec B603  # the caller's own command, and no shell reads it
        [*launcher, *argv],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        pass_fds=[pipe],
        start_new_session=True,
    )


def _find(command: str, env: Mapping[str, str], name: str) -> str:
    """The executable's path, by the ``PATH`` that the child will have and not by our own."""
    if os.name != "posix":
        raise ConfigError(
            f"{name}: cannot be started on {sys.platform}", hint="use Linux, macOS or WSL"
        )
    found = shutil.which(command, path=env.get("PATH"))
    if found is None:
        raise ConfigError(
            f"{name}: the command {command!r} was not found",
            hint="install it, or give the path of its executable",
        )
    return found
