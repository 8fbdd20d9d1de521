"""Which key stands for which picture, in some 50 bytes of memory for each key.

A Python dictionary of a million strings takes 150 MB and more; three arrays of numbers take some
50. Open addressing with linear probing, two thirds full at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from array import array

from internvl_modal.batch.outcome import key_hash

_SMALLEST = 1024


class KnownKeys:
    """Keys of one run; the names of what they stand for are in a temporary file."""

    def __init__(self) -> None:
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - see close
        self._end = self._count = 0
        self._keys, self._marks, self._starts = (array("Q"), array("Q"), array("Q"))
        self._resize(_SMALLEST)

    def close(self) -> None:
        """Forget."""
        self._spool.close()

    def note(self, key: str, mark: bytes, name: str) -> str | None:
        """The name noted with ``key`` before, if that was with another ``mark``."""
        # 0 marks an empty place.
        wanted = key_hash(key) or 1
        place = self._place(wanted)
        short = int.from_bytes(hashlib.blake2b(mark, digest_size=8).digest(), "big")
        if self._keys[place]:
            return self._read(self._starts[place]) if self._marks[place] != short else None
        self._keys[place], self._marks[place], self._starts[place] = wanted, short, self._end
        self._count += 1
        self._write(name)
        if 3 * self._count > 2 * len(self._keys):
            self._resize(2 * len(self._keys))
        return None

    def _place(self, wanted: int) -> int:
        """Where a key is, or belongs."""
        mask = len(self._keys) - 1
        place = wanted & mask
        while self._keys[place] not in (0, wanted):
            place = (place + 1) & mask
        return place

    def _resize(self, size: int) -> None:
        # Everything moves: a key's place depends on the size of the table.
        old = zip(self._keys, self._marks, self._starts, strict=True)
        self._keys, self._marks, self._starts = (array("Q", bytes(8 * size)) for _ in range(3))
        for key, mark, start in old:
            if key:
                place = self._place(key)
                self._keys[place], self._marks[place], self._starts[place] = key, mark, start

    def _write(self, name: str) -> None:
        data = name.encode("utf-8", "surrogateescape")
        with contextlib.suppress(OSError):  # the disk is full: names will be wrong or missing
            self._spool.write(len(data).to_bytes(2, "big") + data)
            self._end += 2 + len(data)

    def _read(self, start: int) -> str:
        with contextlib.suppress(OSError):
            self._spool.seek(start)
            size = int.from_bytes(self._spool.read(2), "big")
            name = self._spool.read(size).decode("utf-8", "surrogateescape")
            self._spool.seek(self._end)
            return name
        # Only for a message, which is better vague than missing.
        return "another"
