"""Several servers of one model: the least busy one is asked, one that fails is left out a while.

Of one transport, which counts what it has sent where. A server that was left out is tried with one
request when its time has come; as long as that is under way it gets no other.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from internvl_modal.errors import (
    AnswerLostError,
    DeadlineExceededError,
    EngineError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.transport.exchange import Exchange

T = TypeVar("T")

FIRST, LONGEST = 1.0, 60.0
"""Seconds that a server is left out, after its first failure and at most; doubled each time."""
IN_A_ROW = 3
"""Failures of an engine, or answers that took too long, that say something of the server: one may
be the picture's."""
_ELSEWHERE = (404, 410, 429, 503)
"""Nobody has worked for such an answer, and another server may have the model, or room."""


@dataclass
class _State:
    """What is known of one server."""

    busy: int = 0
    last: float = 0.0
    """When it was asked last, in monotonic seconds."""
    failures: int = 0
    doubts: int = 0
    """Failures in a row that may be the pictures'."""
    out_until: float = 0.0


class Servers:
    """The state of every server that a transport has sent to; of one event loop."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    async def send(
        self, step: Exchange[Any], attempt: Callable[[Exchange[Any]], Awaitable[T]]
    ) -> T:
        """``attempt`` at the least busy server; where nobody has worked for it, at others too.

        Raises what the last one raised.
        """
        if not step.others:
            return await attempt(step)
        left = [step.base_url, *step.others]
        while True:
            url = self._choose(left)
            left.remove(url)
            try:
                with self._asked(url):
                    return await attempt(replace(step, base_url=url, others=()))
            except ServerError as error:
                # An answer that is kept at an address of its own is where it is.
                if not left or step.so_far.hop is not None or not _is_for_another(error):
                    raise

    def _choose(self, urls: list[str]) -> str:
        now = time.monotonic()

        def place(url: str) -> tuple[bool, float, float]:
            state = self._states.setdefault(url, _State())
            tried = state.failures > 0 and state.busy > 0
            out = tried or state.out_until > now
            # Of those that are left out the one whose time comes first: somebody must be asked.
            return out, state.out_until if out else float(state.busy), state.last

        return min(urls, key=place)

    @contextmanager
    def _asked(self, url: str) -> Iterator[None]:
        """Count a request, and what its end says of the server."""
        state = self._states[url]
        state.busy += 1
        state.last = time.monotonic()
        try:
            yield
        except ServerError as error:
            _blame(state, error)
            raise
        else:
            state.failures = state.doubts = 0
        finally:
            state.busy -= 1


def _blame(state: _State, error: ServerError) -> None:
    """Leave a server out that is not there, has no room, or fails again and again."""
    if isinstance(error, EngineError | DeadlineExceededError):
        state.doubts += 1
        if state.doubts < IN_A_ROW:
            return
    elif not isinstance(error, ServerUnavailableError | RateLimitedError) and (
        error.status not in _ELSEWHERE
    ):
        state.failures = state.doubts = 0  # it said something: it is there
        return
    now = time.monotonic()
    if state.out_until <= now:  # those that were under way say nothing new
        state.failures += 1
    pause = min(LONGEST, FIRST * 2.0 ** min(state.failures - 1, 10))
    state.out_until = max(state.out_until, now + max(pause, error.retry_after or 0.0))


def _is_for_another(error: ServerError) -> bool:
    """Whether nobody has worked for the answer."""
    unreached = isinstance(error, ServerUnavailableError) and error.status is None
    return error.status in _ELSEWHERE or (unreached and not isinstance(error, AnswerLostError))
