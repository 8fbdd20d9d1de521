"""Run a command in a process group that is killed once the process which asked for it is gone.

Run by path as ``python -I -S child_launcher.py PIPE_FD PARENT_PID COMMAND...`` and never imported.

Why not ``preexec_fn`` or PR_SET_PDEATHSIG: the first is unsafe in a program with threads, the
second exists on Linux only and strikes when the thread that started the child ends, not the
process. ``-I -S`` keeps the launcher from importing anything of the caller's environment, and makes
it start in a few milliseconds.
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
    """Kill the whole group once the parent is gone; this process is part of it and dies as well."""
    # A polite end of the group must not take the watcher before what it watches over.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    # Else the reader of the command's output would wait for its end as long as the watcher lives.
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
    # The middle process is gone at once; the watcher is init's child from now on.
    os.waitpid(child, 0)
    os.close(pipe)
    # The process id stays the same: the parent waits for the command itself.
    os.execvp(command[0], command)  # noqa: S606  # nosec B606  # no shell is what is wanted


if __name__ == "__main__":
    main()
