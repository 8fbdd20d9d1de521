"""Who makes the pictures of a batch smaller: this machine, or the server.

What is shrunk here costs this machine's cores and spares the server's and the line. Mostly that is
right: LMDeploy has one thread for pictures, and uplinks are slow. But where a server has several
and the line is fast, its slots stand empty while this machine shrinks. That is seen in the slots
themselves, whatever fills them: the server, the line, or the model behind it. So the share that
goes as it is grows only while slots stand empty, a step at a time, and only as long as each step
brings more pictures a second.

>>> share = Share()
>>> share.round(30, idle=True), share.round(36, idle=True), share.round(36.5, idle=True)
(0.125, 0.25, 0.125)
"""

from __future__ import annotations

import time

from internvl_modal.schema.options import DescribeOptions

LEAST = 0.125
"""The first step, each further one twice as much: four workers that shrink are full with a sixth of
what two cores send them."""
WORTH = 0.05
"""A step must bring a twentieth more pictures a second, or it is taken back; where shrinking is all
that there is to do, the first brings a seventh."""
HOLD = 8
"""Rounds without another try after a step that was not worth it."""
ROUND = 32
"""Answers that make a round: rates of fewer are noise."""


class Share:
    """The share of pictures that go as they are; pure arithmetic."""

    def __init__(self) -> None:
        self.share = 0.0
        self._before: float | None = None
        self._hold = 0

    def round(self, rate: float, *, idle: bool) -> float:
        """The next round's, after one of ``rate`` pictures a second; ``idle``: slots were free."""
        before, self._before = self._before, None
        if self._hold:
            self._hold -= 1
        elif before is not None and rate < before * (1 + WORTH):
            self.share = self._less()
            self._hold = HOLD
        elif not idle:
            # The server, or the line to it, has more than enough to do.
            self.share = self._less()
        elif self.share < 1:
            self.share = min(1.0, 2 * self.share) or LEAST
            self._before = rate
        return self.share

    def _less(self) -> float:
        return self.share / 2 if self.share > LEAST else 0.0


class Shrinking:
    """Says of each picture whether it is shrunk here; of one event loop.

    Anything but "auto" is said of all. ``refused`` is told when the server would not have a picture
    as it is, for there may be a limit to what it takes: from then on all are shrunk.
    """

    def __init__(self, options: DescribeOptions, *, same: bool) -> None:
        """``same``: the same file must be sent as the same bytes each time."""
        self._plain = options
        self._whole = options.model_copy(update={"shrink": "never"})
        self._share = Share() if options.shrink == "auto" and not same else None
        self._credit = 0.0
        self._answered = self._waits = 0
        self._since = time.monotonic()

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

    def answered(self, waits: int) -> None:
        """One more answer; ``waits``: how often a picture has waited for a slot so far."""
        self._answered += 1
        if self._share is None or self._answered < ROUND:
            return
        now = time.monotonic()
        idle = waits - self._waits < self._answered / 8
        self._share.round(self._answered / (now - self._since), idle=idle)
        self._answered, self._waits, self._since = 0, waits, now
