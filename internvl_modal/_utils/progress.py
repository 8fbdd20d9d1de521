"""Where progress is shown: a bar for somebody who watches, lines in a log, or a callback.

Batches and downloads show their progress the same way, and say different things: the two types of
progress are the callers' own and only passed through here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Bar", "View", "choose", "silent"]

CALLBACK_SECONDS = 0.2
"""Often enough for a bar of the caller's own, rarely enough to cost nothing beside a picture."""
BAR_SECONDS = 0.1

P_contra = TypeVar("P_contra", contravariant=True)


class View(Protocol[P_contra]):
    """Is given the state of the work ``every`` so many seconds.

    Used from one thread at a time. ``update`` must not be called more often than ``every`` says;
    who calls it keeps the time.
    """

    every: float

    def update(self, progress: P_contra, /) -> object:
        """Show it."""
        ...

    def close(self) -> None:
        """Show nothing more."""
        ...


class _Call(Generic[P_contra]):
    def __init__(self, call: Callable[[P_contra], object], every: float) -> None:
        self.update, self.every = call, every

    def close(self) -> None:
        pass


class Bar(Generic[P_contra]):
    """A bar of tqdm: how much of it is ``done``, and what the ``note`` at its end says.

    ``total``: of what is counted meanwhile, and ``forms`` how the bar looks before and after.
    """

    every = BAR_SECONDS

    def __init__(
        self,
        done: Callable[[P_contra], int],
        note: Callable[[P_contra], str],
        *,
        total: int | Callable[[P_contra], int | None] | None,
        forms: tuple[str, str] | None = None,
        **bar: Any,
    ) -> None:
        with warnings.catch_warnings():
            # In a notebook without ipywidgets, where it falls back to a bar of text.
            warnings.filterwarnings("ignore", "IProgress not found")
            from tqdm.auto import tqdm

        self._total = total if callable(total) else None
        self._forms = forms
        if forms is not None:
            bar["bar_format"] = forms[0]
        self._done, self._note = done, note
        self._bar = tqdm(total=None if callable(total) else total, **bar)

    def update(self, progress: P_contra, /) -> None:
        """Draw it anew."""
        with suppress(OSError, ValueError):  # the terminal may be gone, the work goes on
            self._count(progress)
            self._bar.update(self._done(progress) - self._bar.n)
            self._bar.set_postfix_str(self._note(progress))

    def _count(self, progress: P_contra) -> None:
        """Show the total once it is known."""
        total = self._total(progress) if self._total is not None else None
        if total is None or total == self._bar.total:
            return
        if hasattr(self._bar, "container"):  # a notebook's bar cannot be given an end later
            self._bar.reset(total)
            self._bar.update(self._done(progress))
        self._bar.total = total
        if self._forms is not None:
            self._bar.bar_format = self._forms[1]

    def close(self) -> None:
        """Leave it as it is."""
        with suppress(OSError, ValueError):  # as above
            self._bar.close()


def choose(
    callback: Callable[[P_contra], object] | None,
    bar: Callable[[], View[P_contra]],
    *,
    lines: float | None,
) -> View[P_contra]:
    """``callback`` where there is one, ``bar`` on a terminal or in a notebook, else the log.

    That gets a line every ``lines`` seconds, or with None nothing.

    Decided once, when the work begins.
    """
    if callback is not None:
        return _Call(callback, CALLBACK_SECONDS)
    # pythonw and some services have none; tqdm would fail at its first letter.
    if sys.stderr is None or sys.stderr.closed:
        return silent()
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return bar()
    return silent() if lines is None else _Call(_log, lines)


def silent() -> View[object]:
    """Show nothing."""
    return _Call(lambda _: None, float("inf"))


def _log(progress: object) -> None:
    with suppress(OSError, ValueError):  # as above
        print(progress, file=sys.stderr, flush=True)  # noqa: T201
