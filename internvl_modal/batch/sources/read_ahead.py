"""Read inputs ahead in a thread of their own, a few at a time.

The caller's iterator may block, belong to one thread, or hold memory that it uses again; the event
loop may do none of these. So one thread runs it from start to end, and hands over small chunks: one
at a time would cost a change of threads for each of a million paths.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from internvl_modal.batch.sources.choice import Choice, Part
from internvl_modal.batch.sources.inputs import Images, check_row, read
from internvl_modal.batch.sources.keys import Item, Naming
from internvl_modal.batch.sources.sample import Drawing

CHUNK = 64
CHUNK_SECONDS = 0.01
CHUNK_BYTES = 4 * 2**20
"""Where a chunk of inputs ends: whichever comes first."""


class End(NamedTuple):
    """Comes last: nothing, or what the source raised after all that it gave.

    A value: ``SystemExit`` in a task would end the event loop, and ``CancelledError`` the task.
    """

    error: BaseException | None


async def items(
    images: Images,
    choice: Choice,
    naming: Naming,
    part: Part | None = None,
    on_count: Callable[[int], object] | None = None,
) -> AsyncGenerator[Item | End, None]:
    """The item of each input in ``part``, made in a thread, then the end; closes ``naming``.

    ``on_count`` is told how many there are where all of them had to be read.

    One thread runs the caller's iterator from start to end.
    """
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, "internvl-read")
    ahead = _Ahead(images, choice, naming, part or Part(), on_count)
    try:
        while True:
            if isinstance(images, AsyncIterable):
                given = await ahead.next()
                chunk = await loop.run_in_executor(thread, ahead.made, given)
            else:
                chunk = await loop.run_in_executor(thread, ahead.chunk)
            for each in chunk:
                yield each
                if isinstance(each, End):
                    return
    finally:
        thread.submit(ahead.close)
        thread.shutdown(wait=False)  # the caller's iterator may wait for something


class _Ahead:
    """Reads a source, a chunk at a time; it raises nothing, an ``End`` says all."""

    def __init__(
        self,
        images: Images,
        choice: Choice,
        naming: Naming,
        part: Part,
        on_count: Callable[[int], object] | None,
    ) -> None:
        self._images, self._choice, self._naming = images, choice, naming
        self._limit, self._on_count = part.limit, on_count
        self._drawing = None if part.sample is None else Drawing(part.sample, part.seed)
        self._source: Any = None
        self._index = 0

    def chunk(self) -> list[Item | End]:
        """The next items, at least one or the end."""
        found: list[Item | End] = []
        until, size = time.monotonic() + CHUNK_SECONDS, 0
        try:
            if self._source is None:
                self._source = read(self._images, self._choice)
            if self._index == self._limit:
                return [End(None)]
            for given in self._source:
                if self._drawing is not None:
                    self._show(self._drawing, given)
                    if time.monotonic() > until:
                        return []
                    continue
                made = self._naming(given, self._index)
                found.append(made)
                self._index += 1
                size += _size(made.source)
                full = len(found) == CHUNK or size > CHUNK_BYTES or time.monotonic() > until
                if full or self._index == self._limit:
                    return found
        except BaseException as error:  # noqa: BLE001 - raised where outcomes are taken
            return [*found, *self._draw(), End(error)]
        return [*found, *self._draw(), End(None)]

    def _show(self, drawing: Drawing, given: Any) -> None:
        index = self._index
        drawing.show(self._naming.key(given, index), lambda: self._naming(given, index))
        self._index += 1

    def _draw(self) -> list[Item]:
        """The sample, where one is drawn and all has been shown."""
        drawing, self._drawing = self._drawing, None
        if drawing is None:
            return []
        if self._on_count is not None:
            self._on_count(drawing.seen)
        return drawing.drawn()

    async def next(self) -> Any:
        """What an asynchronous source gives next, or an ``End``."""
        if self._index == self._limit:
            return End(None)
        try:
            if self._source is None:
                self._source = aiter(self._images)  # type: ignore[arg-type]
            return await anext(self._source)
        except StopAsyncIteration:
            return End(None)
        except asyncio.CancelledError:
            raise  # the batch may have been stopped
        except BaseException as error:  # noqa: BLE001 - as above
            return End(error)

    def made(self, given: Any) -> list[Item | End]:
        """The item of one input."""
        if isinstance(given, End):
            return [*self._draw(), given]
        try:
            if self._drawing is not None:
                self._show(self._drawing, check_row(given, self._choice))
                return []
            made = self._naming(check_row(given, self._choice), self._index)
        except BaseException as error:  # noqa: BLE001 - as above
            return [End(error)]
        self._index += 1
        return [made]

    def close(self) -> None:
        """Let go of the source, unless it is the caller's own."""
        self._naming.close()
        if isinstance(self._source, Generator) and self._source is not self._images:
            self._source.close()


def _size(source: object) -> int:
    """Bytes that an input holds in memory; what cannot be known ends its chunk."""
    if isinstance(source, bytes | bytearray | str):
        return len(source)
    return 0 if isinstance(source, os.PathLike) else CHUNK_BYTES
