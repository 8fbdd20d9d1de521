"""A part of a source: its first inputs, or some drawn from all of it.

Drawn by a hash of each key and of the seed: the same in every order and however often, and a larger
sample holds the smaller one. Of a stream only what may still be drawn is kept.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable

from internvl_modal.batch.sources.keys import Item


class Drawing:
    """Draws from inputs that are shown to it one by one."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._held: list[tuple[int, int, Item]] = []
        self.seen = 0

    def show(self, key: str, make: Callable[[], Item]) -> None:
        """The next input; ``make`` copies it, and is called only if it is drawn so far."""
        place = (-self._rank(key), -self.seen)
        self.seen += 1
        if len(self._held) < self._size:
            heapq.heappush(self._held, (*place, make()))
        elif place > self._held[0][:2]:
            heapq.heapreplace(self._held, (*place, make()))

    def drawn(self) -> list[Item]:
        """What is drawn, in the order of the source."""
        held, self._held = self._held, []
        return [item for _, _, item in sorted(held, key=lambda each: -each[1])]

    def _rank(self, key: str) -> int:
        text = f"{self._seed}\0{key}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
