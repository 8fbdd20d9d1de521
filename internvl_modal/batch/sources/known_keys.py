"""Which key stands for which picture, in some 50 bytes of memory for each key."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile

from internvl_modal.batch.key_table import KeyTable
from internvl_modal.batch.outcome import key_hash


class KnownKeys:
    """Keys of one run; the names of what they stand for are in a temporary file."""

    def __init__(self) -> None:
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - see close
        self._end = 0
        self._table = KeyTable(2)
        """By the hash of a key: that of what it stands for, and where the name of that begins."""

    def close(self) -> None:
        """Forget."""
        self._spool.close()

    def note(self, key: str, mark: bytes, name: str) -> str | None:
        """The name noted with ``key`` before, if that was with another ``mark``."""
        wanted = key_hash(key)
        short = int.from_bytes(hashlib.blake2b(mark, digest_size=8).digest(), "big")
        if (found := self._table.get(wanted)) is not None:
            return self._read(found[1]) if found[0] != short else None
        self._table.put(wanted, short, self._end)
        self._write(name)
        return None

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
