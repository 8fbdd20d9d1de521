"""Bytes over the user's own httpx client, blocking or not.

For those who need what only they can set up: client certificates, a transport of a test, a proxy
with its own log-in. httpx is imported only when somebody brings a client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio
import httpx

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal.transport.coding import Decoder
from internvl_modal.transport.exchange import (
    CONNECT_TIMEOUT,
    AstrayError,
    BrokenError,
    Hop,
    UnsentError,
    UnusableError,
    closed,
    headers_over_limit,
    remaining,
)

T = TypeVar("T")

_UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
_LONGEST = 1e8
"""Seconds; sockets refuse to wait 300 years and more."""


class Borrowed:
    """A client of the user's, used and left open.

    A blocking one works in threads that the program's end does not wait for: at a deadline its
    caller goes on, and the connection ends as soon as httpx lets go of it.

    Cookies, headers and hooks of that client apply; redirects and retries stay ours.
    """

    def __init__(self, client: httpx.Client | httpx.AsyncClient) -> None:
        self._client = client

    async def close(self) -> None:
        """Nothing: the user closes it."""

    async def open(self, hop: Hop) -> Answer:
        """Send ``hop`` and wait for the head of its answer; raises as ``Carrier`` says."""
        client = self._client
        if client.is_closed:
            raise closed()
        left = min(remaining(hop.deadline), _LONGEST)
        with _told(UnusableError):
            request = client.build_request(
                hop.method,
                hop.url,
                headers={"accept-encoding": "identity", **hop.headers},
                content=hop.body or None,
                # Per request: the client's own timeout may be longer than the call's deadline, or
                # none.
                extensions={
                    "timeout": httpx.Timeout(left, connect=min(CONNECT_TIMEOUT, left)).as_dict()
                },
            )
        with _told(AstrayError):
            if isinstance(client, httpx.AsyncClient):
                return Answer(await client.send(request, stream=True, follow_redirects=False))
            # A blocking send cannot be interrupted; what it returns too late is closed by ``undo``.
            send = partial(client.send, request, stream=True, follow_redirects=False)
            return Answer(await _in_thread(send, undo=httpx.Response.close))


class Answer:
    """An answer whose body is still to come."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers.items())
        self._decoder: Decoder | None = None

    async def read(self) -> bytes:
        """The next piece of the body, its coding undone, empty at the end.

        Raises BrokenError, or ServerError.
        """
        if self._decoder is None:
            # A hook of the client's may have read it, and then it is in memory as it is meant.
            there = self._response.is_stream_consumed
            coding = "" if there else self.headers.get("content-encoding", "")
            self._decoder = Decoder(coding, self._pieces(there=there))
        with _told():
            return await self._decoder.read()

    def _pieces(self, *, there: bool) -> Callable[[], Awaitable[bytes]]:
        """What gives the next piece as it comes."""
        response = self._response
        if isinstance(response.stream, httpx.AsyncByteStream):
            pieces = response.aiter_bytes() if there else response.aiter_raw()
            return lambda: anext(pieces, b"")
        blocking = response.iter_bytes() if there else response.iter_raw()
        return lambda: _in_thread(partial(next, blocking, b""))

    async def close(self) -> None:
        """Give the connection back if the body was read, else end it."""
        # Closing must be done even when the call is being cancelled.
        with anyio.CancelScope(shield=True), suppress(httpx.HTTPError, OSError, RuntimeError):
            if isinstance(self._response.stream, httpx.AsyncByteStream):
                await self._response.aclose()
            else:
                self._response.close()


def _in_thread(function: Callable[[], T], undo: Callable[[T], None] | None = None) -> Awaitable[T]:
    """Call ``function`` in a thread; ``undo`` takes what comes after the caller has left."""
    done = in_daemon(function)

    async def wait() -> T:
        try:
            return await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            # The thread cannot be stopped, so its result is taken care of when it comes.
            if undo is not None:
                done.add_done_callback(partial(_undone, undo))
            raise

    return wait()


def _undone(undo: Callable[[T], None], done: Future[T]) -> None:
    """Close what came after its caller had left, or its connection would stay taken."""
    if not done.cancelled() and done.exception() is None:
        undo(done.result())


@contextmanager
def _told(no_url: type[UnusableError] = AstrayError) -> Iterator[None]:
    """Turn httpx's errors into the two that matter: sent for certain not, or perhaps.

    ``no_url``: what a URL that is none means; httpx looks at that of a redirect itself.
    """
    try:
        yield
    except (httpx.InvalidURL, UnicodeError):
        raise no_url from None
    except httpx.RemoteProtocolError as error:
        said = str(error)
        if "location header" in said:
            raise no_url from None
        if "too long" in said:
            raise headers_over_limit() from None
        # What stands behind a colon is the server's, and may be our own headers.
        raise BrokenError(said.partition(":")[0][:200]) from None
    except _UNSENT as error:
        raise UnsentError(str(error)[:200] or type(error).__name__) from error
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        raise BrokenError(str(error)[:200] or type(error).__name__) from error
