"""How far a batch is: on a terminal, in a notebook, in a log, for a callback."""

from __future__ import annotations

import time
from dataclasses import dataclass

from internvl_modal._utils.progress import Bar, View, choose, silent
from internvl_modal.batch.outcome import Outcome

__all__ = ["BatchProgress", "Progress", "ProgressMeter"]

LOG_SECONDS = 10.0


@dataclass(frozen=True)
class BatchProgress:
    """One moment of a batch; rates are per second since its start, ``eta`` seconds.

    Immutable, so a callback may keep it. ``total`` and ``eta`` are None where the source cannot be
    counted.
    """

    described: int = 0
    failed: int = 0
    skipped: int = 0
    """Inputs that an earlier run, or an earlier input of the same key, had settled."""
    failed_before: int = 0
    """Of those, the ones that an earlier run recorded as failed."""
    flagged: int = 0
    """Of the described ones, those that a rule flags."""
    asked_again: int = 0
    """Inputs that were asked about again for their flags or an empty answer."""
    total: int | None = None
    concurrency: int = 0
    pictures_per_second: float = 0.0
    tokens_per_second: float = 0.0
    """Written by the model."""
    eta: float | None = None
    usd: float | None = None
    """What the machine cost so far, where its price is known."""
    waiting: str = ""
    """What nothing goes on without: a GPU container that starts."""

    @property
    def done(self) -> int:
        """Inputs that need nothing more."""
        return self.described + self.failed + self.skipped

    def __str__(self) -> str:
        total = "" if self.total is None else f"/{self.total:,}"
        return f"{self.done:,}{total} pictures, {self.pictures_per_second:.1f}/s, {self.details}"

    @property
    def details(self) -> str:
        """All but the count of pictures, for the end of a bar."""
        parts = [self.waiting] if self.waiting else []
        parts += [f"{self.tokens_per_second:.0f} tok/s", f"{self.failed} failed"]
        parts += [f"{self.flagged} flagged"] if self.flagged else []
        parts += [f"{self.skipped} there"] if self.skipped else []
        parts += [f"{self.concurrency} at once"]
        parts += [] if self.usd is None else [f"{self.usd:.2f} USD"]
        parts += [] if self.eta is None else [f"ETA {self.eta:.0f} s"]
        return ", ".join(parts)


Progress = BatchProgress
"""The name on the package, where it is the only progress that calls are told of."""


class ProgressMeter:
    """Counts outcomes and tells ``option`` of them now and then.

    None draws a bar on a terminal or in a notebook and is silent elsewhere; True writes lines
    there; False is silent; a callable gets every ``BatchProgress``.
    """

    def __init__(self, option: object, total: int | None, usd_per_hour: float | None) -> None:
        self._total, self._price = total, usd_per_hour
        self._described = self._failed = self._skipped = self._failed_before = self._tokens = 0
        self._flagged = self._asked_again = 0
        self._started = time.monotonic()
        self._told = 0.0
        self._waiting = ""
        self._view = _view(option, total)

    def skip(self, *, failed: bool) -> None:
        """One input was settled before."""
        self._skipped += 1
        self._failed_before += failed

    def add(self, outcome: Outcome, concurrency: int) -> None:
        """One more input is settled."""
        self._flagged += bool(outcome.flags) and outcome.ok
        self._asked_again += bool(outcome.tried)
        if outcome.description is None:
            self._failed += 1
        else:
            self._described += 1
            self._tokens += outcome.description.usage.completion_tokens
        self._waiting = ""
        # The view is told at its own pace: a terminal at ten a second, a callback at five.
        now = time.monotonic()
        if now - self._told >= self._view.every:
            self._told = now
            self._view.update(self.now(concurrency))

    def wait(self, words: str, concurrency: int) -> None:
        """Nothing is settled for minutes, and ``words`` say why: told at once, and once."""
        if words != self._waiting:
            self._waiting = words
            self._view.update(self.now(concurrency))

    def close(self, concurrency: int) -> None:
        """Show the last numbers."""
        self._view.update(self.now(concurrency))
        self._view.close()

    def now(self, concurrency: int) -> BatchProgress:
        """The numbers of this moment."""
        # Never 0: the first outcome may be there before the clock has moved.
        elapsed = max(time.monotonic() - self._started, 1e-3)
        rate = (self._described + self._failed) / elapsed
        left = None if self._total is None else self._total - self._skipped
        eta = (left - self._described - self._failed) / rate if left is not None and rate else None
        return BatchProgress(
            described=self._described,
            failed=self._failed,
            skipped=self._skipped,
            failed_before=self._failed_before,
            flagged=self._flagged,
            asked_again=self._asked_again,
            total=self._total,
            concurrency=concurrency,
            pictures_per_second=rate,
            tokens_per_second=self._tokens / elapsed,
            eta=eta,
            waiting=self._waiting,
            # The machine's time and not the answers': an idle GPU is paid for too.
            usd=None if self._price is None else self._price * elapsed / 3600,
        )


def _view(option: object, total: int | None) -> View[BatchProgress]:
    if option is False:
        return silent()

    def bar() -> View[BatchProgress]:
        return Bar(
            lambda p: p.done, lambda p: p.details, total=total, unit="picture", smoothing=0.05
        )

    callback = option if callable(option) else None
    return choose(callback, bar, lines=LOG_SECONDS if option is True else None)
