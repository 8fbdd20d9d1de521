"""Threads for what blocks.

``ThreadPoolExecutor`` joins its threads when the program ends, so one call that hangs in Modal's
client would keep a program alive after Ctrl-C. These threads are left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_daemon"]

T = TypeVar("T")


def in_daemon(function: Callable[[], T]) -> Future[T]:
    """Call ``function`` in a thread that the end of the program does not wait for."""
    done: Future[T] = Future()
    # From here on it cannot be cancelled: what has begun in the thread goes on whatever is waited
    # for.
    done.set_running_or_notify_cancel()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            done.set_exception(error)

    threading.Thread(target=call, name="internvl-daemon", daemon=True).start()
    return done
