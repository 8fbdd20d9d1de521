"""Text that comes in pieces, kept as one run of bytes.

A list of short strings takes fifty times the memory of what they say, and 64 streams may be open.
"""

from __future__ import annotations

__all__ = ["MOST", "KeptText"]

MOST = 384 * 1024
"""Bytes of all that one answer says and thinks: about 100,000 tokens."""


class KeptText:
    """``str()`` is all of it; ``news`` what came since the last call of that.

    >>> kept = KeptText()
    >>> kept.add("A cat "), kept.news(), kept.add("sleeps."), kept.news(), str(kept)
    (None, 'A cat ', None, 'sleeps.', 'A cat sleeps.')
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._told = 0

    def add(self, text: str) -> None:
        """Keep ``text`` too."""
        # JSON can hold halves of a character.
        self._bytes += text.encode("utf-8", "surrogatepass")

    def news(self) -> str:
        """What was added since the last call."""
        new, self._told = self._bytes[self._told :], len(self._bytes)
        return new.decode("utf-8", "surrogatepass")

    def __str__(self) -> str:
        return self._bytes.decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        return len(self._bytes)
