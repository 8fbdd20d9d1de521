"""Ask the same question about the same bytes once.

By the bytes of the request and not by the file: two files can be the same picture once they are
prepared, and the same file with another option is another question.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

from internvl_modal.schema.results import Description
from internvl_modal.transport.exchange import Exchange, Exchanged


class AnswerCache:
    """Answers by the body that was sent, in a temporary file: memory holds a hash of each.

    Of one event loop; a second asker of the same bytes waits for the first one's answer.
    """

    def __init__(self) -> None:
        # A million answers are gigabytes, and most are never asked for again.
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see close
        self._places: dict[bytes, tuple[int, int]] = {}
        self._under_way: dict[bytes, asyncio.Future[None]] = {}

    def close(self) -> None:
        """Forget."""
        self._spool.close()

    async def answer(
        self, step: Exchange[Any], ask: Callable[[], Awaitable[Exchanged[Any]]]
    ) -> Exchanged[Any]:
        """What is known, with no attempt, or what ``ask`` says; a failure is no knowledge."""
        digest = hashlib.blake2b(step.request.body, digest_size=16).digest()
        # A loop, as the one that was waited for may have failed and a third may be asking by now.
        while digest in self._under_way:
            await asyncio.wait({self._under_way[digest]})
        if digest in self._places:
            size, start = self._places[digest]
            self._spool.seek(start)
            return Exchanged(Description.model_validate(json.loads(self._spool.read(size))), 0)
        self._under_way[digest] = asyncio.get_running_loop().create_future()
        try:
            sent = await ask()
            if not isinstance(sent.value, Description):
                return sent  # a question about the server, which is asked once anyway
            # After the answer: a failure leaves nothing here, and the next one asks for itself.
            data = json.dumps(sent.value.model_dump()).encode()
            with contextlib.suppress(OSError):  # the disk is full: the next one is asked about too
                start = self._spool.seek(0, os.SEEK_END)
                if self._spool.write(data) == len(data):
                    self._places[digest] = len(data), start
        finally:
            self._under_way.pop(digest).set_result(None)
        return sent
