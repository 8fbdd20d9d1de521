"""HTTP: one attempt, retries, redirects and deadlines, for both clients.

The only file besides ``fetch`` that knows httpx; the only one that knows tenacity.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import aiohttp
import httpx

from internvl_modal.errors import (
    ConfigError,
    DeadlineExceededError,
    EngineError,
    ServerUnavailableError,
)
from internvl_modal.protocol.http import HttpRequest, HttpResponse
from internvl_modal.transport.retry import Retry

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
PIECE = 2**20
"""Bytes; larger bodies are sent in pieces of it where an event loop must not be held up."""
_LONGEST = 1e8
"""Seconds; sockets refuse to wait 300 years and more."""


MOST_REDIRECTS = 50
"""Modal answers a cold web request with a redirect every 150 s: 50 of them are two hours."""


@dataclass(frozen=True)
class Exchange(Generic[T]):
    """One exchange: a request, how to read its answer, and when (monotonic seconds) to give up."""

    base_url: str
    request: HttpRequest
    decode: Callable[[HttpResponse], T]
    deadline: float
    retry: Retry | None = None
    """None: the client's own rule."""


@dataclass(frozen=True)
class Exchanged(Generic[T]):
    """What came back and how many attempts it took."""

    value: T
    attempts: int


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
def translated(step: Exchange[Any], *, begun: bool = False) -> Iterator[None]:
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


def build_request(client: httpx.Client | httpx.AsyncClient, step: Exchange[Any]) -> httpx.Request:
    """The request as httpx wants it; raises ConfigError for headers that cannot be sent."""
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


def next_hop(response: httpx.Response, step: Exchange[Any], hops: int) -> httpx.Request | None:
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


def received(response: httpx.Response, body: bytes) -> HttpResponse:
    """The response as a value."""
    return HttpResponse(response.status_code, dict(response.headers.items()), body)
