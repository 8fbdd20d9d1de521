"""Numbers by 64-bit keys, in arrays: a million keys in 16 MB, and 16 more for each number.

A Python set of a million takes 100 MB, a dictionary with texts 200. Open addressing with linear
probing, two thirds full at most.
"""

from __future__ import annotations

from array import array

__all__ = ["KeyTable"]

_SMALLEST = 1024


class KeyTable:
    """Keys of 64 bits, each with ``columns`` numbers of 64 bits; nothing is ever taken out.

    >>> table = KeyTable(1)
    >>> table.put(7, 49)
    >>> 7 in table, table.get(7), table.get(8)
    (True, (49,), None)
    """

    def __init__(self, columns: int = 0) -> None:
        self._count = 0
        self._resize([array("Q") for _ in range(1 + columns)], _SMALLEST)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: int) -> bool:
        # 0 marks an empty place.
        return self._keys[self._place(key or 1)] != 0

    def get(self, key: int) -> tuple[int, ...] | None:
        """The numbers of ``key``; None where it is not there."""
        place = self._place(key or 1)
        return tuple(column[place] for column in self._columns) if self._keys[place] else None

    def put(self, key: int, *numbers: int) -> None:
        """Keep ``key`` with its numbers, in the place of those that it had."""
        key = key or 1
        place = self._place(key)
        self._count += not self._keys[place]
        self._keys[place] = key
        for column, number in zip(self._columns, numbers, strict=True):
            column[place] = number
        if 3 * self._count > 2 * len(self._keys):
            self._resize([self._keys, *self._columns], 2 * len(self._keys))

    def _place(self, key: int) -> int:
        """Where a key is, or belongs."""
        mask = len(self._keys) - 1
        place = key & mask
        while self._keys[place] not in (0, key):
            place = (place + 1) & mask
        return place

    def _resize(self, old: list[array[int]], size: int) -> None:
        # Everything moves: a key's place depends on the size of the table.
        self._keys, *self._columns = (array("Q", bytes(8 * size)) for _ in old)
        for key, *numbers in zip(*old, strict=True):
            if key:
                place = self._place(key)
                self._keys[place] = key
                for column, number in zip(self._columns, numbers, strict=True):
                    column[place] = number
