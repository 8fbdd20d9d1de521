"""HTTP over aiohttp's connection pool, for ``AsyncClient``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx
import tenacity
from httpx_aiohttp import HttpxAiohttpClient

from internvl_modal.errors import (
    ConfigError,
)
from internvl_modal.transport.exchange import (
    Exchange,
    Exchanged,
    build_request,
    next_hop,
    received,
    remaining,
    translated,
)
from internvl_modal.transport.retry import Retry, policy
from internvl_modal.transport.sync import DIRECT

T = TypeVar("T")


_UNLIMITED = httpx.Limits(max_connections=0)
"""aiohttp reads 0 as no limit; None would be its default of 100."""


class AsyncTransport:
    """The same for ``AsyncClient``, over aiohttp's connection pool."""

    def __init__(self, client: httpx.AsyncClient | None, retry: Retry) -> None:
        self._own = client is None
        self._client = client or HttpxAiohttpClient(limits=_UNLIMITED, mounts=DIRECT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retry = retry

    async def close(self) -> None:
        """Close the connections, unless the client was the user's."""
        if self._own:
            await self._client.aclose()

    async def send(self, step: Exchange[T]) -> Exchanged[T]:
        """Exchange and decode, again where that may help."""
        retrying = tenacity.AsyncRetrying(**policy(step.retry or self._retry, step.deadline))
        return Exchanged(await retrying(self._once, step), retrying.statistics["attempt_number"])

    @asynccontextmanager
    async def stream(
        self, step: Exchange[T]
    ) -> AsyncIterator[tuple[Exchanged[T], AsyncIterator[bytes]]]:
        """Open a streamed answer, again where that may help, and give its chunks."""
        retrying = tenacity.AsyncRetrying(**policy(step.retry or self._retry, step.deadline))
        begun: tuple[httpx.Response, T] = await retrying(self._begin, step)
        response, value = begun
        try:
            sent = Exchanged(value, retrying.statistics["attempt_number"])
            yield sent, self._chunks(response, step, begun=True)
        finally:
            await response.aclose()

    async def _once(self, step: Exchange[T]) -> T:
        response = await self._open(step)
        try:
            body = b"".join([chunk async for chunk in self._chunks(response, step)])
            return step.decode(received(response, body))
        finally:
            await response.aclose()

    async def _begin(self, step: Exchange[T]) -> tuple[httpx.Response, T]:
        response = await self._open(step)
        try:
            failed = response.status_code != 200
            chunks = [chunk async for chunk in self._chunks(response, step)] if failed else []
            return response, step.decode(received(response, b"".join(chunks)))
        except BaseException:
            await response.aclose()
            raise

    async def _open(self, step: Exchange[Any]) -> httpx.Response:
        self._check_loop()
        with translated(step):
            request = build_request(self._client, step)
            for hops in itertools.count(1):
                with anyio.fail_after(remaining(step.deadline)):
                    response = await self._client.send(request, stream=True, follow_redirects=False)
                following = next_hop(response, step, hops)
                if following is None:
                    return response
                await response.aclose()
                request = following
        raise AssertionError("unreachable")

    def _check_loop(self) -> None:
        """Connections of one event loop cannot be used in another."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._own and self._loop is not loop:
            raise ConfigError(
                "this AsyncClient has been used in another event loop",
                hint="make one in each event loop, or use a Client",
            )

    async def _chunks(
        self, response: httpx.Response, step: Exchange[Any], *, begun: bool = False
    ) -> AsyncIterator[bytes]:
        chunks = response.aiter_bytes()
        with translated(step, begun=begun):
            while True:
                with anyio.fail_after(remaining(step.deadline)):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk
