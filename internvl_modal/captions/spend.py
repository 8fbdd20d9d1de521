"""What a batch may cost, and what it has cost: the guard that ``max_usd`` is.

A machine is paid for while it runs, not by the answer: while it starts, while it waits for the next
request, and for the idle window after the last one. So money is time here, and the guard asks
before each request whether the machine could still be let go within the limit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from internvl_modal.errors import ConfigError, SpendLimitError

__all__ = ["Bill", "SpendMeter", "bill_of"]

HOUR = 3600
REMEMBERED = 200
"""Answers by whose time the next ones are foreseen."""


@dataclass(frozen=True)
class Bill:
    """What machines cost: USD an hour for all of them, USD after the last request, and a picture.

    ``per_picture``: USD on a busy machine, at best and at worst, where that is known.
    """

    usd_per_hour: float
    idle_usd: float = 0.0
    start_usd: float = 0.0
    per_picture: tuple[float, float] | None = None

    def projected(self, pictures: int) -> tuple[float, float] | None:
        """USD for so many pictures, at best and at worst; None where their speed is not known."""
        if self.per_picture is None:
            return None
        fixed = self.start_usd + self.idle_usd
        low, high = self.per_picture
        return fixed + low * pictures, fixed + high * pictures

    def check(self, max_usd: float, pictures: int | None) -> None:
        """Raise SpendLimitError where ``pictures`` cost more than ``max_usd`` even at best."""
        if pictures == 0:
            return
        # How many is not always known: one will be asked about at least.
        count = 1 if pictures is None else pictures
        low, high = self.projected(count) or (self.idle_usd, self.idle_usd)
        if low <= max_usd:
            return
        what = "one picture" if count == 1 else f"{count:,} pictures"
        raise SpendLimitError(
            f"{what} would cost {low:.2f} to {high:.2f} USD, and max_usd is {max_usd:.2f}",
            hint="nothing was sent; give a higher max_usd, or fewer pictures with limit=",
            spent=0.0,
            max_usd=max_usd,
        )


def bill_of(
    usd_per_hour: float | None, idle_usd: float | None, start_usd: float | None = None
) -> Bill:
    """The bill of a server by its price; raises ConfigError where there is none."""
    if usd_per_hour is None:
        raise ConfigError(
            "max_usd needs a price, and none is known for this server",
            hint="give what its machine costs: usd_per_hour=",
        )
    return Bill(usd_per_hour, idle_usd or 0.0, start_usd or 0.0)


class SpendMeter:
    """Counts what a batch costs from its first request on; of any thread.

    ``may_send`` is asked before each request and each repetition of one. It foresees that what is
    under way takes as long as the slowest of the last answers, and that the idle window follows.
    What is under way when it says no is paid for, and nothing after it: by that alone, as far as
    it takes longer than foreseen, can ``max_usd`` be exceeded. ``clock`` counts seconds.

    >>> now = [0.0]
    >>> meter = SpendMeter(1.0, Bill(3600.0), clock=lambda: now[0])
    >>> meter.may_send(), meter.spent
    (True, 0.0)
    >>> with meter.request():
    ...     now[0] += 0.6
    >>> meter.spent, meter.may_send()
    (0.6, False)
    """

    def __init__(
        self, max_usd: float, bill: Bill, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_usd, self.bill, self._clock = max_usd, bill, clock
        self._begun: float | None = None
        self._under_way = 0
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """USD until now, the idle window not yet counted."""
        return self._usd(self._clock())

    @property
    def under_way(self) -> int:
        """Requests that are not answered."""
        return self._under_way

    @property
    def committed(self) -> float:
        """USD if nothing more were sent: what is under way, and the idle window at the end."""
        now = self._clock()
        return self._usd(now + self._foreseen()) + self.bill.idle_usd

    def may_send(self) -> bool:
        """Whether one more request ends within the limit, as far as can be foreseen."""
        return self.committed <= self.max_usd

    def request(self) -> _Request:
        """Count what is done within as one request that is under way."""
        return _Request(self)

    def exhausted(self) -> SpendLimitError:
        """What ends a batch that may send no more."""
        return SpendLimitError(
            f"max_usd={self.max_usd:g} is reached: {self.committed:.2f} USD with what is under way"
            " and the idle time after it",
            hint="all that was answered is kept; with a file as out= the same call goes on, with a"
            " budget of its own",
            spent=self.committed,
            max_usd=self.max_usd,
        )

    def sent(self) -> float:
        """One request leaves; returns the time."""
        with self._lock:
            now = self._clock()
            self._begun = now if self._begun is None else self._begun
            self._under_way += 1
            return now

    def answered(self, since: float) -> None:
        """One that left at ``since`` has come to its end, whatever that was."""
        with self._lock:
            self._under_way -= 1
            self._seconds.append(self._clock() - since)

    def _usd(self, until: float) -> float:
        if self._begun is None:
            return 0.0
        return (until - self._begun) * self.bill.usd_per_hour / HOUR

    def _foreseen(self) -> float:
        """Seconds that the next answer takes."""
        with self._lock:
            return max(self._seconds, default=0.0)


class _Request:
    """See ``SpendMeter.request``."""

    def __init__(self, meter: SpendMeter) -> None:
        self._meter, self._since = meter, 0.0

    def __enter__(self) -> None:
        self._since = self._meter.sent()

    def __exit__(self, *_: object) -> None:
        self._meter.answered(self._since)
