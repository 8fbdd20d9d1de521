"""Undo the coding of a body, never more of it at once than fits a small piece.

A few KB of gzip can hold a gigabyte. aiohttp's own decompression is therefore turned off, and its
limits are replaced by pieces that are counted as they come.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from internvl_modal.errors import ServerError

__all__ = ["CODINGS", "Decoder"]

CODINGS = ("gzip", "x-gzip", "deflate")
"""What is read besides plain bytes; ``identity`` is what is asked for."""
_PIECE = 2**16
_EITHER = 32 + zlib.MAX_WBITS
"""For zlib: a header of gzip's or of its own."""


class Decoder:
    """Plain bytes of a body sent in ``coding``; raises ServerError for others, nested ones too."""

    def __init__(self, coding: str) -> None:
        name = coding.strip().lower()
        if name not in ("", "identity", *CODINGS):
            raise ServerError(
                f"the answer is coded as {coding[:40]!r}, which was not asked for",
                hint="look at the proxy in front of the server",
            )
        self._zlib = zlib.decompressobj(_EITHER) if name in CODINGS else None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces of what ``chunk`` holds; raises ServerError for what is not of that coding."""
        if self._zlib is None:
            yield chunk
            return
        try:
            # ``unconsumed_tail`` is what did not fit the piece; a bomb is noticed by whoever counts
            # pieces.
            while chunk:
                if piece := self._zlib.decompress(chunk, _PIECE):
                    yield piece
                chunk = self._zlib.unconsumed_tail
        except zlib.error as error:
            raise ServerError("the answer's coding is damaged") from error
