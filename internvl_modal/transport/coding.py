"""Undo the coding of a body, never more of it at once than fits a small piece.

A few KB of gzip can hold a gigabyte. aiohttp's own decompression is therefore turned off, and its
limits are replaced by pieces that are counted as they come.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable

from internvl_modal.errors import ServerError

__all__ = ["CODINGS", "Decoder"]

CODINGS = ("gzip", "x-gzip", "deflate")
"""What is read besides plain bytes; ``identity`` is what is asked for."""
_PIECE = 2**16
_EITHER = 32 + zlib.MAX_WBITS
"""For zlib: a header of gzip's or of its own."""


class Decoder:
    """Plain bytes of a body sent in ``coding``; raises ServerError for others, nested ones too.

    ``more`` gives the next piece as it comes, empty at the end.
    """

    def __init__(self, coding: str, more: Callable[[], Awaitable[bytes]]) -> None:
        name = coding.strip().lower()
        if name not in ("", "identity", *CODINGS):
            raise ServerError(
                f"the answer is coded as {coding[:40]!r}, which was not asked for",
                hint="look at the proxy in front of the server",
            )
        self._zlib = zlib.decompressobj(_EITHER) if name in CODINGS else None
        self._more, self._rest = more, b""

    async def read(self) -> bytes:
        """The next piece, empty at the end; raises ServerError for what is not of that coding."""
        if self._zlib is None:
            return await self._more()
        try:
            while self._rest or (rest := await self._more()):
                # What did not fit is kept: a bomb is noticed by whoever counts pieces.
                piece = self._zlib.decompress(self._rest or rest, _PIECE)
                self._rest = self._zlib.unconsumed_tail
                if piece:
                    return piece
        except zlib.error as error:
            raise ServerError("the answer's coding is damaged") from error
        return b""
