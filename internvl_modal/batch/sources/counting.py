"""How many inputs a source has, found out beside the run: for the bar's end and for projections.

Only what is cheap to walk: names, lists and the headers of tars on this machine. A packed tar would
have to be unpacked, a stream is there once, and what is at an address costs requests.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from glob import has_magic
from pathlib import Path
from typing import Any

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal.batch.sources import folders
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.inputs import READERS, STANDARD_INPUT, Sources, read, size_of
from internvl_modal.batch.sources.patterns import braces, has_braces
from internvl_modal.batch.sources.places import has_scheme
from internvl_modal.batch.sources.tars import count_in_tar, is_tar

_ASK_EVERY = 256
"""Inputs between two looks at whether anybody still wants to know."""


class Counting:
    """Counts in a thread of its own; ``close`` it."""

    def __init__(self, images: Any, choice: Choice) -> None:
        self._images, self._choice = images, choice
        self._over = threading.Event()
        self._found: Future[int | None] | None = None
        self._known = size_of(images)

    def start(self) -> None:
        """Begin, unless the number is known or cannot be had."""
        if self._known is None and isinstance(self._images, str | os.PathLike | Sources):
            self._found = in_daemon(self._count)

    @property
    def total(self) -> int | None:
        """How many; None while that is not known."""
        if self._found is not None and self._found.done():
            return self._found.result()
        return self._known

    @property
    def under_way(self) -> Future[int | None] | None:
        """What a caller may wait for."""
        return self._found

    def tell(self, total: int) -> None:
        """Somebody else has counted, by reading all of it."""
        self._known, self._found = total, None

    def close(self) -> None:
        """Count no further."""
        self._over.set()

    def _count(self) -> int | None:
        try:
            return self._of(self._images)
        except Exception:  # noqa: BLE001 - reading it will say what is wrong
            return None

    def _of(self, images: Any) -> int | None:
        """The number of inputs in a name or in several; None for what is not counted."""
        if isinstance(images, Sources):
            return _sum(self._of(name) for name in images.names)
        name = os.fspath(images)
        ending = Path(name).suffix.lower()
        if name == STANDARD_INPUT or has_scheme(name):
            return None
        if not Path(name).exists():
            several = has_braces(name) or has_magic(name)
            found = (self._one(each, ending) for each in _matching(name))
            return _sum(found) if several else None
        return self._read(name) if Path(name).is_dir() else self._one(name, ending)

    def _one(self, each: Any, ending: str) -> int | None:
        """One path that a name or a pattern stands for."""
        if self._over.is_set() or ending == ".pdf":
            return None
        if isinstance(each, tuple):
            return 1  # a folder that cannot be listed is a failure of its own
        if is_tar(each):
            return count_in_tar(each, folders.is_picture, self._over.is_set)
        if ending == ".parquet":
            from pyarrow import parquet

            return int(parquet.read_metadata(each).num_rows)
        if ending in READERS:
            return self._read(each)
        return int(folders.is_picture(each) and not Path(each).is_dir())

    def _read(self, name: str) -> int | None:
        number = 0
        for number, _ in enumerate(read(name, self._choice), 1):
            if number % _ASK_EVERY == 0 and self._over.is_set():
                return None
        return number


def _matching(pattern: str) -> Iterator[Any]:
    for name in braces(pattern):
        yield from folders.matching(name) if has_magic(name) else [name]


def _sum(numbers: Iterator[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total
