"""Waking everyone who waits for something."""

from __future__ import annotations

import asyncio


class Bell:
    """Heard by all who listen when it is rung.

    Not an ``asyncio.Condition``: before Python 3.12 a listener with a time limit that is cancelled
    twice, as grpclib does where a connection ends and its server is closed, keeps that lock for
    ever.
    """

    def __init__(self) -> None:
        self._listening: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake whoever listens."""
        for listener in self._listening:
            if not listener.done():
                listener.set_result(None)

    async def heard(self, seconds: float) -> None:
        """Return when it is rung, or after this time."""
        listener = asyncio.get_running_loop().create_future()
        self._listening.add(listener)
        try:
            await asyncio.wait({listener}, timeout=seconds)
        finally:
            self._listening.discard(listener)
