"""Where outcomes are written, and what an earlier run left there.

A sink is used from one thread, but for ``has``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from internvl_modal.batch.key_table import KeyTable
from internvl_modal.batch.outcome import Outcome, identity, key_hash
from internvl_modal.protocol.endpoint import Endpoint

__all__ = ["Callback", "Known", "SeenKeys", "Sink"]

SYNC_SECONDS = 5.0
"""What a power cut may cost; a killed process loses nothing that was written."""


class Sink(Protocol):
    """Takes outcomes and knows those of earlier runs of the same fingerprint.

    One for each batch. ``open`` comes first and ``close`` last, also after an error; what it raises
    ends the batch.
    """

    def open(self, run: str) -> None:
        """Find what is there, and remove none of it; ``run`` is the fingerprint."""
        ...

    def told(self, endpoint: Endpoint) -> None:
        """What is known of the server, before ``open``."""
        ...

    def claim(self, key: str, former: str | None = None) -> bool:
        """Whether ``key`` needs no work; asked once for each input, it also notes the key.

        ``former`` is what 0.1.0 called the input, where that was another key.
        """
        ...

    def other(self, key: str, content: str) -> str:
        """The content of another picture that an earlier run described under ``key``, or ""."""
        ...

    def has_failed(self, key: str) -> bool:
        """Whether an earlier run recorded that ``key`` failed."""
        ...

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep them all, or raise; with none, every ``SYNC_SECONDS``, while nothing is done."""
        ...

    def close(self) -> None:
        """Make them last."""
        ...


class Known(NamedTuple):
    """What a later run wants to know of a line."""

    key: str
    run: object
    failed: bool
    earlier: bool = False
    """Whether 0.1.0 wrote it, which had other keys for some inputs."""
    content: str = ""
    asked: str = ""


class _Silent:
    """A sink to which servers are all the same."""

    def told(self, endpoint: Endpoint) -> None:
        """Nothing of it is written."""


class SeenKeys(_Silent):
    """Which keys were seen, in 16 to 48 bytes each.

    By 64-bit hashes: the keys themselves would be a hundred bytes and more.
    """

    def __init__(self) -> None:
        self._seen = KeyTable()
        self._failed: set[int] = set()
        self._earlier: set[int] = set()
        self._contents = KeyTable(1)

    def note(
        self, key: str, *, failed: bool = False, earlier: bool = False, content: str = ""
    ) -> None:
        """Keep ``key``; ``earlier``: by the name that 0.1.0 had for it."""
        mark = key_hash(key)
        self._seen.put(mark)
        if (number := _number(content)) is not None:
            self._contents.put(mark, number)
        if earlier:
            self._earlier.add(mark)
        if failed:
            self._failed.add(mark)

    @property
    def settled(self) -> int:
        """How many keys are known."""
        return len(self._seen)

    def note_known(self, known: Iterable[Known], run: str, *, retry: bool) -> bool:
        """Keep those of ``run``, but for failures that are to be tried again: were there any?"""
        stale = False
        for each in known:
            if each.run == run:
                again = each.failed and retry
                stale = stale or again
                if not again:
                    self.note(
                        identity(each.key, each.asked),
                        failed=each.failed,
                        earlier=each.earlier,
                        content=each.content,
                    )
        return stale

    def other(self, key: str, content: str) -> str:
        """What ``key`` was noted with, if not with ``content``; that is noted where none was."""
        number = _number(content)
        if number is None:
            return ""
        mark = key_hash(key)
        if mark not in self._seen:
            self._contents.put(mark, number)
        noted = self._contents.get(mark)
        return "" if noted is None or noted == (number,) else f"{noted[0]:016x}"

    def share(self, other: SeenKeys) -> None:
        """Know the bytes of the same pictures as ``other``."""
        self._contents = other._contents

    def content(self, key: str) -> str:
        """What was noted of the bytes of ``key``."""
        found = self._contents.get(key_hash(key)) if len(self._contents) else None
        return "" if found is None else f"{found[0]:016x}"

    def has_failed(self, key: str) -> bool:
        """Whether ``key`` was noted as failed."""
        return key_hash(key) in self._failed

    def claim(self, key: str, former: str | None = None) -> bool:
        """Whether ``key`` was seen, or is the first of what 0.1.0 called ``former``."""
        mark = key_hash(key)
        known = mark in self._seen
        self._seen.put(mark)
        # Only files of 0.1.0 can hold such names.
        if not known and former is not None and self._earlier:
            mark = key_hash(former)
            known = mark in self._earlier
        if known:
            # Each old name settles one input: two pictures had the same one then.
            self._earlier.discard(mark)
        return known


def _number(content: str) -> int | None:
    """The 64 bits of a digest; None for none, and for what this package has not written."""
    try:
        return int(content, 16) & 0xFFFF_FFFF_FFFF_FFFF
    except ValueError:
        return None


class Callback(_Silent):
    """Calls a function with each outcome, from one thread; nothing is remembered."""

    def __init__(self, call: Callable[[Outcome], object]) -> None:
        self._call = call

    def open(self, run: str) -> None:
        """Nothing is there."""

    def claim(self, key: str, former: str | None = None) -> bool:
        """Every input is work."""
        return False

    def other(self, key: str, content: str) -> str:
        """Nothing is known."""
        return ""

    def has_failed(self, key: str) -> bool:
        """Nothing is known."""
        return False

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Call it; what it raises stops the batch."""
        for outcome in outcomes:
            self._call(outcome)

    def close(self) -> None:
        """Nothing is held."""
