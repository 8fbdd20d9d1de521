"""Stop strings, held by the client: LMDeploy ignores those that are not a single token.

All engines differ in what they stop at, and some return the stop string itself. Cutting here makes
every server's answer end before it, while the request still carries the strings, to spare the
tokens behind them.

>>> cutter = StopCutter(["END"])
>>> cutter.feed("a cat E"), cutter.feed("ND and more"), cutter.stopped
('a cat ', '', True)
"""

from __future__ import annotations

from collections.abc import Sequence


class StopCutter:
    """Passes text on up to the first stop string; holds back what may be the start of one.

    Once ``stopped``, everything further is swallowed.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Text that is certain to stand before any stop string."""
        if self.stopped:
            return ""
        text, self._held = self._held + text, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        held = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back and turned out to be ordinary text."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
