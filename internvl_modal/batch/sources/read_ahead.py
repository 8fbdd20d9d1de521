"""Read inputs ahead in a thread of their own, a few at a time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from internvl_modal.batch.sources.inputs import Images, read
from internvl_modal.batch.sources.keys import Item

CHUNK = 64
CHUNK_SECONDS = 0.01
CHUNK_BYTES = 4 * 2**20
"""Where a chunk of inputs ends: whichever comes first."""


async def items(
    images: Images, column: str | None, make: Callable[[Any, int], Item]
) -> AsyncGenerator[Item, None]:
    """What ``make`` makes of each input and its number, in a thread.

    One thread runs the caller's iterator from start to end.
    """
    index = 0
    if isinstance(images, AsyncIterable):
        async for given in images:
            yield await asyncio.to_thread(make, given, index)
            index += 1
        return
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, "internvl-read")
    source: Iterator[Any] = iter(())
    try:
        source = await loop.run_in_executor(thread, read, images, column)
        while chunk := await loop.run_in_executor(thread, _chunk, source, index, make):
            for each in chunk:
                yield each
            index += len(chunk)
    finally:
        if isinstance(source, Generator) and source is not images:
            thread.submit(source.close)
        thread.shutdown(wait=False)  # the caller's iterator may wait for something


def _chunk(source: Iterator[Any], index: int, make: Callable[[Any, int], Item]) -> list[Item]:
    """The next inputs, of which the first has the number ``index``; empty at the end."""
    chunk: list[Item] = []
    until, size = time.monotonic() + CHUNK_SECONDS, 0
    for given in source:
        chunk.append(make(given, index + len(chunk)))
        size += _size(chunk[-1].source)
        if len(chunk) == CHUNK or size > CHUNK_BYTES or time.monotonic() > until:
            break
    return chunk


def _size(source: object) -> int:
    if isinstance(source, bytes | bytearray | str):
        return len(source)
    return 0 if isinstance(source, os.PathLike) else CHUNK_BYTES
