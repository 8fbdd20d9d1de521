"""How far a batch is: on a terminal, in a notebook, in a log, for a callback."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from internvl_modal._utils.progress import Bar, View, choose, silent
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.projection import Projection, lasting, project
from internvl_modal.batch.sources.choice import Part

__all__ = ["BatchProgress", "Progress", "ProgressMeter"]

LOG_SECONDS = 10.0
_FORMS = (
    "{n_fmt} pictures [{elapsed}]{postfix}",
    "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} pictures [{elapsed}]{postfix}",
)
"""A bar before and after its end is known; the time left is in the postfix, once."""


@dataclass(frozen=True)
class BatchProgress:
    """One moment of a batch; rates are per second since its start, ``eta`` seconds.

    Immutable, so a callback may keep it. ``total`` and ``eta`` are None where the source cannot be
    counted, and until it is.
    """

    described: int = 0
    failed: int = 0
    skipped: int = 0
    """Inputs that an earlier run, or an earlier input of the same key, had settled."""
    failed_before: int = 0
    """Of those, the ones that an earlier run recorded as failed."""
    imported: int = 0
    """Inputs that somebody else has described (``import_=``)."""
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
    projection: Projection | None = None
    """With ``limit=`` or ``sample=``: what the whole source would take, where it is counted; else
    what a thousand pictures would."""

    @property
    def done(self) -> int:
        """Inputs that need nothing more."""
        return self.described + self.failed + self.skipped + self.imported

    def __str__(self) -> str:
        total = "" if self.total is None else f"/{self.total:,}"
        return f"{self.done:,}{total} pictures, {self.details}"

    @property
    def details(self) -> str:
        """All but the count of pictures, for the end of a bar."""
        parts = [self.waiting] if self.waiting else []
        parts += [f"{self.pictures_per_second:.1f}/s"]
        parts += [f"{self.tokens_per_second:.0f} tok/s", f"{self.failed} failed"]
        parts += [f"{self.flagged} flagged"] if self.flagged else []
        parts += [f"{self.skipped} there"] if self.skipped else []
        parts += [f"{self.imported} imported"] if self.imported else []
        parts += [f"{self.concurrency} at once"]
        parts += [] if self.usd is None else [f"{self.usd:.2f} USD"]
        parts += [] if self.eta is None else [f"ETA {lasting(self.eta)}"]
        return ", ".join(parts)


Progress = BatchProgress
"""The name on the package, where it is the only progress that calls are told of."""


class ProgressMeter:
    """Counts outcomes and tells ``option`` of them now and then.

    None draws a bar on a terminal or in a notebook and is silent elsewhere; True writes lines
    there; False is silent; a callable gets every ``BatchProgress``.
    """

    def __init__(
        self,
        option: object,
        count: Callable[[], int | None],
        usd_per_hour: float | None,
        part: Part | None = None,
    ) -> None:
        """``count``: how many inputs there are, where that is known by now."""
        self._count, self._price, self._part = count, usd_per_hour, part or Part()
        self._imported = 0
        self._described = self._failed = self._skipped = self._failed_before = self._tokens = 0
        self._flagged = self._asked_again = 0
        self._started = self._last = time.monotonic()
        self._told = self._waited = 0.0
        self._waiting = ""
        self._view = _view(option)

    def skip(self, *, failed: bool) -> None:
        """One input was settled before."""
        self._skipped += 1
        self._failed_before += failed

    def add(self, outcome: Outcome, concurrency: int) -> None:
        """One more input is settled."""
        self._flagged += bool(outcome.flags) and outcome.ok
        self._asked_again += bool(outcome.tried)
        if outcome.imported:
            self._imported += 1
        elif outcome.description is None:
            self._failed += 1
        else:
            self._described += 1
            self._tokens += outcome.description.usage.completion_tokens
        if self._waiting:  # nobody is asked while a machine starts
            self._waiting, self._waited = "", time.monotonic() - self._started - outcome.seconds
        # The view is told at its own pace: a terminal at ten a second, a callback at five.
        self._last = now = time.monotonic()
        if now - self._told >= self._view.every:
            self._told = now
            self._view.update(self.now(concurrency))

    def wait(self, words: str, concurrency: int) -> None:
        """Nothing is settled for minutes, and ``words`` say why: told at once, and once."""
        if words != self._waiting:
            self._waiting = words
            self._view.update(self.now(concurrency))

    def close(self, concurrency: int) -> None:
        """Show the last numbers, if there are any: an error about the source says enough."""
        last = self.now(concurrency)
        if last.done or last.total is not None:
            self._view.update(last)
        self._view.close()

    def now(self, concurrency: int) -> BatchProgress:
        """The numbers of this moment."""
        # Never 0: the first outcome may be there before the clock has moved.
        elapsed = max(time.monotonic() - self._started, 1e-3)
        rate = (self._described + self._failed) / elapsed
        whole = self._count()
        total = self._part.of(whole)
        left = None if total is None else total - self._skipped - self._imported
        eta = (left - self._described - self._failed) / rate if left is not None and rate else None
        return BatchProgress(
            described=self._described,
            failed=self._failed,
            skipped=self._skipped,
            failed_before=self._failed_before,
            imported=self._imported,
            flagged=self._flagged,
            asked_again=self._asked_again,
            total=total,
            concurrency=concurrency,
            pictures_per_second=rate,
            tokens_per_second=self._tokens / elapsed,
            eta=eta,
            waiting=self._waiting,
            projection=self._projection(whole) if self._part.is_part else None,
            # The machine's time and not the answers': an idle GPU is paid for too.
            usd=None if self._price is None else self._price * elapsed / 3600,
        )

    def _projection(self, whole: int | None) -> Projection | None:
        # Until the last answer: what comes after it would not come again for each picture.
        seconds = max(self._last - self._started - self._waited, 1e-3)
        done = self._described + self._failed
        return project(done, seconds, self._tokens, whole, self._price)


def _view(option: object) -> View[BatchProgress]:
    if option is False:
        return silent()

    def bar() -> View[BatchProgress]:
        return Bar(lambda p: p.done, lambda p: p.details, total=lambda p: p.total, forms=_FORMS)

    callback = option if callable(option) else None
    return choose(callback, bar, lines=LOG_SECONDS if option is True else None)
