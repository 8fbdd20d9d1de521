"""What the routes ask the client for, in threads of the gateway's own.

The gateway asks through the same flows as ``Client``, with limits that suit strangers' pictures,
and with threads apart from the event loop's default ones, which others use for short work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pybase64

from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.streams import AsyncStream
from internvl_modal.flows.discovery import Ready
from internvl_modal.flows.relay import Relayed, relay, relay_object
from internvl_modal.flows.steps import Flow, adrive
from internvl_modal.flows.typed import Wanted
from internvl_modal.images.formats import format_of
from internvl_modal.images.names import source_name
from internvl_modal.protocol.endpoint import preview
from internvl_modal.protocol.http import Json
from internvl_modal.schema.inputs import Message
from internvl_modal.schema.options import Options
from internvl_modal.schema.results import Description

T = TypeVar("T")

MAX_PIXELS = 40_000_000
MAX_DECODED = 200_000_000
"""Pixels and bytes of one picture, in place of the client's own limits.

The client's own defaults suit one user's photos; here one caller must not take the others' memory.
"""
PREPARING = 2
"""Pictures that are decoded at once, so that all together take 400 MB at most.

Decoding gains nothing from more threads than cores, and a small container has two.
"""
FIRST = 1024
"""Bytes of a picture that tell what it is."""


class Model:
    """The model behind the gateway.

    Pictures have threads of their own, so that no number of them holds up what else runs here,
    and a bound on the memory that they take together.

    Uses the client's core: a caller's fields go to the server as they are, which no public call
    does.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client, self._core = client, client._core
        self._threads = ThreadPoolExecutor(PREPARING, "internvl-gateway")

    async def ready(self) -> Ready:
        """Who answers; the server is asked unless that is known."""
        return await self._run(self._core.ready())

    async def describe(self, image: bytes, prompt: str, options: Options) -> Description:
        """Describe one picture."""
        look(image)
        return await self._run(self._core.describe(image, prompt, _bounded(options)))

    def describing(self, image: bytes, prompt: str, options: Options) -> AsyncStream:
        """The same piece by piece."""
        look(image)
        flow = self._core.open_stream(image, prompt, _bounded(options))
        return AsyncStream(self._run, self._client._transport, flow)

    def cost(self, tiles: int) -> tuple[float, float] | None:
        """USD for a picture of so many tiles, at best and at worst, where the price is known."""
        price = (self._core.endpoint or preview(self._client.backend)).price
        return price.picture_cost(tiles) if price else None

    async def answer(
        self, messages: Sequence[Message], options: Options, fields: Mapping[str, object]
    ) -> Relayed:
        """Answer the last of ``messages``; ``fields`` go to the server as they are."""
        _look_at_all(messages)
        return await self._run(relay(self._core, messages, _bounded(options), fields))

    async def answer_object(
        self,
        messages: Sequence[Message],
        options: Options,
        fields: Mapping[str, object],
        wanted: Wanted[Json],
    ) -> Relayed:
        """The same with a JSON object for an answer."""
        _look_at_all(messages)
        flow = relay_object(self._core, messages, _bounded(options), fields, wanted)
        return await self._run(flow)

    def stream(
        self, messages: Sequence[Message], options: Options, fields: Mapping[str, object]
    ) -> AsyncStream:
        """The same piece by piece."""
        _look_at_all(messages)
        flow = self._core.opened(messages, _bounded(options), fields)
        return AsyncStream(self._run, self._client._transport, flow)

    def close(self) -> None:
        """Let the threads end; the client is whoever's opened it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, flow: Flow[T]) -> T:
        return await adrive(flow, self._client._transport.send, self._call)

    async def _call(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _bounded(options: Options) -> Options:
    return {"max_pixels": MAX_PIXELS, "max_bytes_decoded": MAX_DECODED, **options}


def _look_at_all(messages: Sequence[Message]) -> None:
    for message in messages:
        for image in message.images:
            look(image)


def look(image: bytes | str) -> None:
    """Raise ImageError for what is no picture by its first bytes, before any thread is asked.

    What is broken in other ways is told by whoever reads the whole.

    It costs microseconds on the event loop, and saves a thread, a place and a wait for a mistake.
    """
    head = image[:FIRST] if isinstance(image, bytes) else _first_bytes(image)
    if head:
        format_of(head, source_name(image))


def _first_bytes(url: str) -> bytes:
    """The first bytes in a data URL; empty for another URL, and where they are not plain base64."""
    header, _, body = url[: 2 * FIRST].partition(",")
    if header[:5].lower() != "data:" or not header.lower().endswith(";base64"):
        return b""
    try:
        return pybase64.b64decode(body[: len(body) // 4 * 4], validate=True)
    except ValueError:
        return b""
