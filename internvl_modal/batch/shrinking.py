"""Who makes the pictures of a batch smaller: this machine, or the server.

What is shrunk here costs this machine's cores and spares the server's and the line. Mostly that is
right: LMDeploy has one thread for pictures, and uplinks are slow. But where a server has several
and the line is fast, its slots stand empty while this machine shrinks. So more goes as it is while
slots stand empty and the threads that prepare are busy, as long as no step brings fewer answers a
second than there were before it; and less once a picture has to wait for a slot, as whatever is
short fills the slots in the end: the server, the line, or the model behind it.

>>> share = Share()
>>> [share.round(rate, idle=True, busy=True) for rate in (40, 46, 54, 50)]
[0.125, 0.25, 0.5, 0.25]
>>> share.round(54, idle=False, busy=True)
0.125
"""

from __future__ import annotations

import time

from internvl_modal.schema.options import DescribeOptions

LEAST = 0.125
"""The first step, each further one twice as much, and every step back: four workers that shrink are
full with a sixth of what two cores send them."""
HOLD = 8
"""Rounds without another step after one that filled the slots, or brought fewer answers."""
ROUND = 32
"""Answers that make a round: fewer are noise."""
BUSY = 0.5
"""Share of their time that the threads prepare from which this machine's cores are what is short;
elsewhere the source may be slow, or whoever takes the outcomes."""


class Share:
    """The share of pictures that go as they are; pure arithmetic."""

    def __init__(self) -> None:
        self.share = 0.0
        self._hold = 0
        self._before: tuple[float, float] | None = None
        """The share and the rate before the step that the last round was to judge."""

    def round(self, rate: float, *, idle: bool, busy: bool) -> float:
        """The next round's, after one of ``rate`` answers a second.

        In it slots were ``idle`` or not, and this machine ``busy``.
        """
        self._hold = max(0, self._hold - 1)
        before, self._before = self._before, None
        if not idle and self.share:
            self.share -= LEAST
            self._hold = HOLD
        elif before is not None and rate < before[1]:
            self.share, self._hold = before[0], HOLD
        elif idle and busy and not self._hold and self.share < 1:
            self._before = (self.share, rate)
            self.share = min(1.0, 2 * self.share) or LEAST
        return self.share


class Shrinking:
    """Says of each picture whether it is shrunk here; of one event loop.

    Anything but "auto" is said of all. ``refused`` is told when the server would not have a picture
    as it is, for there may be a limit to what it takes: from then on all are shrunk.
    """

    def __init__(self, options: DescribeOptions, threads: int, *, same: bool) -> None:
        """``threads`` prepare; ``same``: a file must be sent as the same bytes each time."""
        self._plain = options
        self._whole = options.model_copy(update={"shrink": "never"})
        self._share = Share() if options.shrink == "auto" and not same else None
        self._threads = threads
        self._credit = self._prepared = 0.0
        self._decided = 1  # before the first answer a rate would be none
        self._begin(0)

    def options(self) -> DescribeOptions:
        """Those of the next picture."""
        if self._share is None:
            return self._plain
        self._credit += self._share.share
        if self._credit < 1:
            return self._plain
        self._credit -= 1
        return self._whole

    def is_own(self, options: DescribeOptions) -> bool:
        """Whether ``options`` leave a picture as it is, and nobody has asked for that."""
        return options is self._whole

    def refused(self) -> None:
        """Shrink all from here on."""
        self._share = None

    def answered(self, prepared: float, waits: int, under_way: int) -> None:
        """One more answer, to a picture that was ``prepared`` in so many seconds.

        ``waits``: how often a picture has waited for a slot so far. ``under_way``: how many are
        prepared or asked about.
        """
        if self._share is None:
            return
        if self._decided:  # before the last step, of which they tell nothing
            self._decided -= 1
            self._begin(waits)
            return
        self._answered += 1
        self._prepared += prepared
        if self._answered == ROUND:
            self._judge(self._share, waits, under_way)
            self._begin(waits)

    def _begin(self, waits: int) -> None:
        """Another round."""
        self._answered, self._prepared, self._waits, self._since = 0, 0.0, waits, time.monotonic()

    def _judge(self, share: Share, waits: int, under_way: int) -> None:
        """Make a step after a round, or none."""
        seconds = max(time.monotonic() - self._since, 1e-6)
        idle = waits - self._waits < ROUND / 8
        busy = self._prepared > BUSY * self._threads * seconds
        before = share.share
        after = share.round(ROUND / seconds, idle=idle, busy=busy)
        if after > before:
            self._decided = under_way
        elif after < before:  # a server that has become slow must not be waited for as long
            self._decided = min(under_way, ROUND // 2)
