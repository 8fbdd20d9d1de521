"""HTTP: one attempt, retries, redirects and deadlines, for both clients.

The only file besides ``fetch`` that knows httpx; the only one that knows tenacity.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

import aiohttp
import anyio
import httpx
import tenacity
from httpx_aiohttp import HttpxAiohttpClient

from internvl_modal.errors import (
    ConfigError,
    DeadlineExceededError,
    EngineError,
    InternVLError,
    ServerUnavailableError,
)
from internvl_modal.replies import HttpResponse
from internvl_modal.wire import HttpRequest

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
PIECE = 2**20
"""Bytes; larger bodies are sent in pieces of it where an event loop must not be held up."""
_LONGEST = 1e8
"""Seconds; sockets refuse to wait 300 years and more."""
_UNLIMITED = httpx.Limits(max_connections=0)
"""aiohttp reads 0 as no limit; None would be its default of 100."""
_DIRECT = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
"""Servers on this machine are reached without the environment's proxy, which cannot see them."""
MOST_REDIRECTS = 50
"""Modal answers a cold web request with a redirect every 150 s: 50 of them are two hours."""


@dataclass(frozen=True)
class Retry:
    """When a request is sent again: connection errors, 408, 429 and 5xx.

    Waits grow from ``initial`` to ``maximum`` seconds by ``factor``, with full jitter; a
    ``Retry-After`` that asks for longer is obeyed. No wait outlasts the call's deadline.
    """

    attempts: int = 5
    initial: float = 0.5
    maximum: float = 30.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.initial < 0 or self.maximum < 0 or self.factor < 1:
            raise ConfigError(
                f"impossible {self!r}", hint="attempts >= 1, waits >= 0 s and factor >= 1"
            )


@dataclass(frozen=True)
class Send(Generic[T]):
    """One exchange: a request, how to read its answer, and when (monotonic seconds) to give up."""

    base_url: str
    request: HttpRequest
    decode: Callable[[HttpResponse], T]
    deadline: float
    retry: Retry | None = None
    """None: the client's own rule."""


@dataclass(frozen=True)
class Sent(Generic[T]):
    """What came back and how many attempts it took."""

    value: T
    attempts: int


class _Policy(TypedDict):
    stop: Callable[[tenacity.RetryCallState], bool]
    wait: Callable[[tenacity.RetryCallState], float]
    retry: Any
    reraise: bool


def _policy(retry: Retry, deadline: float) -> _Policy:
    """Tenacity's arguments, the same for both clients."""
    backoff = tenacity.wait_random_exponential(
        multiplier=retry.initial, max=retry.maximum, exp_base=retry.factor
    )

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), getattr(error, "retry_after", None) or 0.0)

    def stop(state: tenacity.RetryCallState) -> bool:
        late = time.monotonic() + state.upcoming_sleep >= deadline
        return late or state.attempt_number >= retry.attempts

    def again(error: BaseException) -> bool:
        return isinstance(error, InternVLError) and error.retryable

    return _Policy(stop=stop, wait=wait, retry=tenacity.retry_if_exception(again), reraise=True)


def remaining(deadline: float) -> float:
    """Seconds left; raises DeadlineExceededError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceededError(
            "the call took longer than its timeout", hint="pass a larger timeout="
        )
    return left


def _timeout(deadline: float) -> dict[str, float | None]:
    """The timeouts of one hop, as httpx wants them: never past the deadline."""
    left = min(remaining(deadline), _LONGEST)
    return httpx.Timeout(left, connect=min(CONNECT_TIMEOUT, left)).as_dict()


@contextmanager
def _translated(step: Send[Any], *, begun: bool = False) -> Iterator[None]:
    """Turn HTTP errors into ours; whatever happens at the deadline is the deadline's.

    ``begun``: the server has said 200 and given pieces of its answer away.
    """
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigError(
            f"{step.base_url!r} is not a usable URL: {error}", hint="give http(s)://HOST:PORT/v1"
        ) from error
    except (httpx.HTTPError, aiohttp.ClientError, OSError, TimeoutError) as error:
        remaining(step.deadline)
        reason = str(error) or type(error).__name__
        if begun:
            raise EngineError(
                f"the stream ended early: {reason}",
                hint="see the server's log; the same request may work again",
                status=200,
            ) from error
        raise ServerUnavailableError(
            f"no answer from {step.base_url}: {reason}",
            hint="check the URL and that the server runs",
        ) from error


class _Pieces:
    """A large body piece by piece; aiohttp warns of whole ones."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), PIECE):
            yield self._body[start : start + PIECE]


def _build(client: httpx.Client | httpx.AsyncClient, step: Send[Any]) -> httpx.Request:
    if client.is_closed:
        raise ConfigError("the client is closed", hint="make a new one")
    for name, value in step.request.headers.items():
        if not (value.isascii() and value.isprintable()):  # httpx would quote it, key and all
            raise ConfigError(
                f"the header {name!r} cannot be sent", hint="printable ASCII only; copy it again"
            )
    headers, body = dict(step.request.headers), step.request.body
    in_pieces = isinstance(client, httpx.AsyncClient) and len(body) > PIECE
    if in_pieces:
        headers["content-length"] = str(len(body))
    return client.build_request(
        step.request.method,
        f"{step.base_url.rstrip('/')}/{step.request.path}",
        headers=headers,
        content=_Pieces(body) if in_pieces else body or None,
        extensions={"timeout": _timeout(step.deadline)},
    )


def _next_hop(response: httpx.Response, step: Send[Any], hops: int) -> httpx.Request | None:
    """The request that a redirect asks for, without our keys when it leaves the origin."""
    request = response.next_request
    if request is None:
        return None
    if hops >= MOST_REDIRECTS:
        raise ServerUnavailableError(
            f"{step.base_url} redirected {hops} times", hint="check the URL"
        )
    if _origin(request.url) != _origin(response.request.url):
        for name in step.request.headers:
            if name.lower() != "content-type":
                request.headers.pop(name, None)
    if isinstance(request.stream, Iterable):
        request.read()  # else httpx-aiohttp sends even an empty body as chunks, with a GET too
    request.extensions = {**request.extensions, "timeout": _timeout(step.deadline)}
    return request


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _received(response: httpx.Response, body: bytes) -> HttpResponse:
    return HttpResponse(response.status_code, dict(response.headers.items()), body)


class Transport:
    """Performs steps for ``Client``; closes its ``httpx.Client`` unless one was given."""

    def __init__(self, client: httpx.Client | None, retry: Retry) -> None:
        self._own = client is None
        self._client = client or self._new()
        self._process = os.getpid()
        self._retry = retry

    def _new(self) -> httpx.Client:
        client = httpx.Client(mounts=_DIRECT)
        weakref.finalize(self, client.close)
        return client

    def close(self) -> None:
        """Close the connections, unless the client was the user's."""
        if self._own:
            self._client.close()

    def send(self, step: Send[T]) -> Sent[T]:
        """Exchange and decode, again where that may help."""
        retrying = tenacity.Retrying(**_policy(step.retry or self._retry, step.deadline))
        return Sent(retrying(self._once, step), retrying.statistics["attempt_number"])

    @contextmanager
    def stream(self, step: Send[T]) -> Iterator[tuple[Sent[T], Iterator[bytes]]]:
        """Open a streamed answer, again where that may help, and give its chunks."""
        retrying = tenacity.Retrying(**_policy(step.retry or self._retry, step.deadline))
        response, value = retrying(self._begin, step)
        try:
            sent = Sent(value, retrying.statistics["attempt_number"])
            yield sent, self._chunks(response, step, begun=True)
        finally:
            response.close()

    def _once(self, step: Send[T]) -> T:
        response = self._open(step)
        try:
            return step.decode(_received(response, b"".join(self._chunks(response, step))))
        finally:
            response.close()

    def _begin(self, step: Send[T]) -> tuple[httpx.Response, T]:
        response = self._open(step)
        try:
            failed = response.status_code != 200
            body = b"".join(self._chunks(response, step)) if failed else b""
            return response, step.decode(_received(response, body))
        except BaseException:
            response.close()
            raise

    def _open(self, step: Send[Any]) -> httpx.Response:
        if self._own and self._process != os.getpid():  # forked: two must not share a connection
            self._client, self._process = self._new(), os.getpid()
        with _translated(step):
            request = _build(self._client, step)
            for hops in itertools.count(1):
                response = self._client.send(request, stream=True, follow_redirects=False)
                following = _next_hop(response, step, hops)
                if following is None:
                    return response
                response.close()
                request = following
        raise AssertionError("unreachable")

    def _chunks(
        self, response: httpx.Response, step: Send[Any], *, begun: bool = False
    ) -> Iterator[bytes]:
        with _translated(step, begun=begun):
            for chunk in response.iter_bytes():
                remaining(step.deadline)
                yield chunk


class AsyncTransport:
    """The same for ``AsyncClient``, over aiohttp's connection pool."""

    def __init__(self, client: httpx.AsyncClient | None, retry: Retry) -> None:
        self._own = client is None
        self._client = client or HttpxAiohttpClient(limits=_UNLIMITED, mounts=_DIRECT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retry = retry

    async def close(self) -> None:
        """Close the connections, unless the client was the user's."""
        if self._own:
            await self._client.aclose()

    async def send(self, step: Send[T]) -> Sent[T]:
        """Exchange and decode, again where that may help."""
        retrying = tenacity.AsyncRetrying(**_policy(step.retry or self._retry, step.deadline))
        return Sent(await retrying(self._once, step), retrying.statistics["attempt_number"])

    @asynccontextmanager
    async def stream(self, step: Send[T]) -> AsyncIterator[tuple[Sent[T], AsyncIterator[bytes]]]:
        """Open a streamed answer, again where that may help, and give its chunks."""
        retrying = tenacity.AsyncRetrying(**_policy(step.retry or self._retry, step.deadline))
        begun: tuple[httpx.Response, T] = await retrying(self._begin, step)
        response, value = begun
        try:
            sent = Sent(value, retrying.statistics["attempt_number"])
            yield sent, self._chunks(response, step, begun=True)
        finally:
            await response.aclose()

    async def _once(self, step: Send[T]) -> T:
        response = await self._open(step)
        try:
            body = b"".join([chunk async for chunk in self._chunks(response, step)])
            return step.decode(_received(response, body))
        finally:
            await response.aclose()

    async def _begin(self, step: Send[T]) -> tuple[httpx.Response, T]:
        response = await self._open(step)
        try:
            failed = response.status_code != 200
            chunks = [chunk async for chunk in self._chunks(response, step)] if failed else []
            return response, step.decode(_received(response, b"".join(chunks)))
        except BaseException:
            await response.aclose()
            raise

    async def _open(self, step: Send[Any]) -> httpx.Response:
        self._check_loop()
        with _translated(step):
            request = _build(self._client, step)
            for hops in itertools.count(1):
                with anyio.fail_after(remaining(step.deadline)):
                    response = await self._client.send(request, stream=True, follow_redirects=False)
                following = _next_hop(response, step, hops)
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
        self, response: httpx.Response, step: Send[Any], *, begun: bool = False
    ) -> AsyncIterator[bytes]:
        chunks = response.aiter_bytes()
        with _translated(step, begun=begun):
            while True:
                with anyio.fail_after(remaining(step.deadline)):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk
