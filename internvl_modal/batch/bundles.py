"""Blocking functions in threads, short ones several at a time.

A change of threads takes longer than reading a small picture: the event loop and the thread take
Python's lock from each other at every file operation. So what is asked for at the same time goes to
a thread together, and the event loop stands still for it; for a moment only, as a disk may be slow.
What has not begun by then gets threads of its own, and so does what is asked for next.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

MOST = 8
"""Functions that go to a thread together."""
PATIENCE = 0.01
"""Seconds that the event loop stands still for them: twice those for which CPython lets a thread
keep its lock, as the one that writes lines may have it."""
HOLD = 32
"""Functions that get threads of their own after some that took longer."""


class _Work(NamedTuple):
    """A function, and who waits for it."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]


class Bundler:
    """Calls functions in the threads of an executor; of one event loop."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._asked: deque[_Work] = deque()
        self._alone = 0

    def call(self, function: Callable[[], T]) -> Awaitable[T]:
        """What ``function`` returns or raises, as ``contained`` has it."""
        loop = asyncio.get_running_loop()
        work = _Work(function, loop.create_future())
        self._asked.append(work)
        if len(self._asked) == 1:
            loop.call_soon(self._flush)
        return work.future

    def _flush(self) -> None:
        """Begin what was asked for, and stand still for a part of it where that may be short."""
        while self._asked and self._alone:
            self._alone -= 1
            _Bundle([self._asked.popleft()], self._threads).deliver_later()
        if not self._asked:
            return
        together = [self._asked.popleft() for _ in range(min(MOST, len(self._asked)))]
        bundle = _Bundle(together, self._threads)
        if self._asked:
            asyncio.get_running_loop().call_soon(self._flush)
        if bundle.over.acquire(timeout=PATIENCE):
            bundle.deliver()
            return
        self._alone = HOLD
        for work in bundle.left():
            _Bundle([work], self._threads).deliver_later()
        bundle.deliver_later()


class _Bundle:
    """Functions that one thread calls, one after the other."""

    def __init__(self, works: list[_Work], threads: Executor) -> None:
        self.over = threading.Lock()
        self.over.acquire()
        self._waiting = deque(works)
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._thread: Future[None] = Future()
        try:
            self._thread = threads.submit(self._work)
        except RuntimeError as error:  # no thread is to be had
            self._waiting.clear()
            self._done.extend((work.future, None, error) for work in works)
            self._thread.set_result(None)

    def _work(self) -> None:
        while self._waiting:
            try:
                function, future = self._waiting.popleft()
            except IndexError:  # the event loop was faster
                break
            if future.cancelled():
                continue
            try:
                self._done.append((future, contained(function), None))
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                self._done.append((future, None, error))
        self.over.release()

    def left(self) -> list[_Work]:
        """Take back what the thread has not begun."""
        left = []
        with suppress(IndexError):  # until none is left, for the thread takes them too
            while True:
                left.append(self._waiting.popleft())
        return left

    def deliver(self) -> None:
        """Tell who waits what has come of it; in the event loop."""
        while self._done:
            future, result, error = self._done.popleft()
            if future.done():  # cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def deliver_later(self) -> None:
        """Deliver once the thread is through."""
        asyncio.wrap_future(self._thread).add_done_callback(lambda _: self.deliver())


def contained(function: Callable[..., T], *arguments: object) -> T:
    """Call it in a thread; raises RuntimeError for what an event loop would take for its own.

    Both end an ``await`` in ways that no caller expects.
    """
    try:
        return function(*arguments)
    except (StopIteration, asyncio.CancelledError, CancelledError) as error:
        raise RuntimeError(f"{type(error).__name__} was raised in the middle") from error
