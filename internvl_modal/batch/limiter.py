"""How many requests run at once: a fixed number, or as many as raise the throughput.

The best number depends on the server's GPU, its batch size, the pictures and the network, and
nobody knows it. Thousands of requests at once have choked a vision server that a throttle of 16
brought back; too few leave a GPU idle that is paid for. So throughput is measured, and the limit
climbs as long as that grows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from internvl_modal.errors import DeadlineExceededError, RateLimitedError, ServerUnavailableError

START = 4
"""Enough for a small server, and three doublings from most large ones."""
WORTH = 0.1
"""Growth of the limit by x must raise the throughput by a tenth of x, or it is taken back.

A little: answers scatter, and a server that is full shows no growth at all.
"""
HOLD = 5
"""Rounds without another try after growth that was not worth it."""
ROUND = 3
"""Answers per slot that make a round: fewer are noise, more are slow."""


class AimdLimit:
    """Additive increase, multiplicative decrease, as TCP has it; pure arithmetic.

    It doubles up to the last known good level, then grows by an eighth, and halves when the
    server says that it is too much.
    """

    def __init__(self, start: int, most: int) -> None:
        self.limit = min(start, most)
        self._most = most
        self._threshold: float = most
        self._before: tuple[int, float] | None = None
        self._hold = 0
        self._cut = False

    def round(self, rate: float) -> None:
        """One round of ``rate`` answers per second at this limit, all slots taken."""
        if self._hold:
            self._hold -= 1
            return
        if self._before is not None and self.limit > self._before[0]:
            grown = self.limit / self._before[0] - 1
            # The last step brought nothing: back, and not at once again.
            if rate < self._before[1] * (1 + WORTH * grown):
                self.limit = self._before[0]
                self._threshold, self._before, self._hold = self.limit, None, HOLD
                return
        self._before = (self.limit, rate)
        step = self.limit if self.limit < self._threshold else max(1, self.limit // 8)
        # Doubling never jumps over a level that was too much before.
        bound = self._threshold if self.limit < self._threshold else self._most
        self.limit = int(min(self.limit + step, bound, self._most))

    def halve(self) -> None:
        """The server has too much to do; a storm of such answers leaves the threshold alone."""
        # One overload gives many refusals; only the first says at what level it happened.
        if not self._cut or self.limit > self._threshold:
            self._threshold, self._cut = max(1, self.limit // 2), True
        self.limit = max(1, self.limit // 2)
        self._before, self._hold = None, 0


class Limiter:
    """Slots for requests, and a pause for all of them when the server asks for one.

    ``ahead`` pictures more than there are slots may be in preparation or wait for one.

    Of one event loop. What is admitted may be in memory, what has a slot is at the server.
    """

    def __init__(self, concurrency: int | None, most: int, ahead: int, servers: int = 1) -> None:
        self._climber = AimdLimit(START * servers, most) if concurrency is None else None
        self._fixed = concurrency or most
        self._ahead = ahead
        self._admitted = self._active = 0
        self._paused_until = self._cut_at = self._round_from = 0.0
        self._changed = asyncio.Condition()
        self.waits = 0
        """How often a picture has found no free slot."""
        self._next_round()

    @property
    def limit(self) -> int:
        """Requests that may run at once now."""
        return self._climber.limit if self._climber else self._fixed

    @property
    def under_way(self) -> int:
        """Pictures that are prepared, wait for a slot, or are at the server."""
        return self._admitted

    async def admit(self) -> None:
        """Wait until one more picture may be prepared."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._admitted < self.limit + self._ahead)
            self._admitted += 1

    async def dismiss(self) -> None:
        """A picture is done."""
        async with self._changed:
            self._admitted -= 1
            self._changed.notify_all()

    def ease(self) -> None:
        """Send fewer at once, where their number is ours: it is too much for this machine."""
        if self._climber is not None:
            self._climber.halve()
            self._next_round()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot for one request; what it raises or not teaches the limit."""
        await self._acquire()
        begun = time.monotonic()
        try:
            yield
        except Exception as error:
            self._failed(error, begun)
            raise
        else:
            self._succeeded()
        finally:
            self._active -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _acquire(self) -> None:
        self.waits += self._active >= self.limit
        while True:
            # Asked again after every wait: another answer may have prolonged the pause meanwhile.
            pause = self._paused_until - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            async with self._changed:
                if self._active < self.limit and self._paused_until <= time.monotonic():
                    self._active += 1
                    return
                # Somebody waits for a slot, so the limit is what holds the throughput down.
                self._full = True
                await self._changed.wait()

    def _succeeded(self) -> None:
        if self._climber is None:
            return
        self._answered += 1
        if self._answered == 0:  # those that began under the limit before are through
            self._round_from = time.monotonic()
        elif self._answered >= ROUND * self.limit:
            rate = self._answered / (time.monotonic() - self._round_from)
            # A limit that was never reached says nothing about itself.
            if self._full:
                self._climber.round(rate)
            self._next_round()

    def _failed(self, error: Exception, begun: float) -> None:
        if not is_congestion(error):
            return
        now = time.monotonic()
        wait = getattr(error, "retry_after", None) or 0.0
        self._paused_until = max(self._paused_until, now + wait)
        # Those that were under way at the cut were sent under the old limit.
        if self._climber is not None and begun >= self._cut_at:
            self._climber.halve()
            self._cut_at = max(now, self._paused_until)  # those under way say nothing new
            self._next_round()

    def _next_round(self) -> None:
        self._answered, self._full = -self.limit, False


def is_congestion(error: Exception) -> bool:
    """Whether fewer requests at once would help: 429, 503, and no answer in time.

    A lost connection counts, as overloaded servers drop them; a 500 is a fault of another kind.
    """
    if isinstance(error, ServerUnavailableError):
        return error.status in (None, 408, 503, 504)
    return isinstance(error, RateLimitedError | DeadlineExceededError)
