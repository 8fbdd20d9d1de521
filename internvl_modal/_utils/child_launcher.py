"""Run a command in a process group that is killed once the process which asked for it is gone.

Run by path as ``python -I -S child_launcher.py PIPE_FD PARENT_PID COMMAND...`` and never imported.
"""

import os
import select
import signal
import sys


def _wait_for_end(pipe: int, parent: int) -> None:
    """Return once nobody holds the other end of ``pipe`` or the process ``parent`` has ended."""
    watched = [pipe]
    if sys.platform == "linux":
        # A fork of the parent inherits the pipe and would keep it open; a pidfd is not fooled.
        try:
            watched.append(os.pidfd_open(parent))
        except ProcessLookupError:
            return
        except OSError:  # the kernel (gVisor, before 5.3) has no pidfd
            pass
    select.select(watched, [], [])


def _watch(pipe: int, parent: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    _wait_for_end(pipe, parent)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Leave a watcher behind and become the command, so that both share one process group."""
    pipe, parent, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    child = os.fork()
    if child == 0:
        if os.fork() == 0:  # twice, so that the command has no child it does not know of
            _watch(pipe, parent)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(pipe)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
