"""An event loop in a thread of its own, for callers that block.

aiohttp needs an event loop, and a blocking ``Client`` is used from threads that have none, or have
one of their own that must not be blocked. One loop serves all clients of the process: sockets are
pooled in it, and requests of many threads run side by side.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread", "shared_loop"]

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for threads that wait; the interpreter does not wait for its thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._ending = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Run the loop until ``close``: a task's SystemExit ends ``run_forever``, and must not end
        the others.
        """
        while not self._ending:
            try:
                self.loop.run_forever()
            except BaseException:  # noqa: BLE001, S112 - a task's SystemExit: who waits for it has it
                continue

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """What ``work`` returns or raises; cancelled where the wait is, by Ctrl-C or a timeout.

        Never from the loop's own thread: it would wait for itself.
        """
        done = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return done.result(timeout)
        except BaseException:
            done.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, object]) -> None:
        """Have ``work`` done; wait for it unless that would be for ever.

        For what also runs when something is collected: in any thread, this one too, and at the end
        of the program, when daemon threads stand still.
        """
        if sys.is_finalizing() or self.loop.is_closed():
            work.close()
        elif threading.current_thread() is self._thread:
            task = self.loop.create_task(work)
            # A loop keeps only weak references to its tasks: one that nobody else holds may be
            # collected before it is done.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.call(work)

    def close(self) -> None:
        """Stop the loop, end its thread and free what both hold."""
        self._ending = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self.loop.close()


_lock = threading.RLock()  # a client may be collected, and closed, while it is held
_shared: list[LoopThread] = []
_left_behind: list[LoopThread] = []
"""Loops of the parent: to free them here would take their sockets away from it there."""


def shared_loop() -> LoopThread:
    """The one of this process, made when it is first needed.

    Safe in any thread. After a fork the child makes its own.
    """
    with _lock:
        if not _shared:
            _shared.append(LoopThread("internvl-http"))
        return _shared[0]


def _after_fork() -> None:
    """A child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _left_behind.extend(_shared)
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
