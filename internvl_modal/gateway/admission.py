"""What stands before the routes: the key, how much of a body, how many at once, and who left.

Plain ASGI and not a dependency of FastAPI: it must act before anything reads the body, and on
routes that do not exist as well. The order is who, how many, how much: a stranger must not be able
to fill the memory, and a caller with the key must not be able to stop the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import anyio
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from internvl_modal.gateway.auth import check_key
from internvl_modal.gateway.errors import RefusedError
from internvl_modal.gateway.guests import Guests
from internvl_modal.gateway.page.routes import FILES, wants_page

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request body; base64 makes a picture a third larger."""
BODIES = 8
"""Largest bodies that may be in memory together.

Together 256 MB, so a small container holds them.
"""
BODY_SECONDS = 60.0
"""Seconds that a caller may take to send a body."""
MAX_REQUESTS = 128
"""Requests under way, where nobody knows how many the model's server answers at once."""
BUSY_AFTER = 5
"""Seconds after which a caller may try again whom the gateway had no room for.

About what one picture takes.
"""
LEFT = 499
"""Counted for callers who left; the name is nginx's, nobody is answered with it."""
OPEN = ("/health", *FILES)
"""Addresses without a key, beside the page at ``/``.

A load balancer has no key, and learns nothing but that the process runs; the page asks for it.
"""


@dataclass(frozen=True)
class Limits:
    """How much the gateway takes: ``body`` bytes, in ``seconds``, for ``requests`` at once."""

    body: int = MAX_BODY
    requests: int = MAX_REQUESTS
    seconds: float = BODY_SECONDS


class Admission:
    """ASGI middleware: nobody without the key, nobody beyond the limits, nobody who has left.

    Whoever is let in has sent the whole body. It is on the event loop, and does nothing there
    that takes time.

    Counters need no lock: there is one event loop, and nothing is awaited between a look and a
    change.
    """

    def __init__(self, app: ASGIApp, key: SecretStr, guests: Guests, limits: Limits) -> None:
        self._app, self._key, self._guests, self._limits = app, key, guests, limits
        self._under_way = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises RefusedError."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if {"content-length", "transfer-encoding"} <= set(request.headers):
            # A proxy in front may go by the other of the two, and take the rest of the body for
            # somebody's next request (RFC 9112, 6.1).
            text = "a request has a Content-Length or a Transfer-Encoding, not both"
            raise RefusedError(400, text, headers={"Connection": "close"})
        if not _is_open(request):
            check_key(request, self._key, self._guests)
        # Everything else has no body and asks no model.
        if request.method != "POST":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._limits.requests:
            raise busy("as many requests as it takes are under way")
        self._under_way += 1
        body = _Body(receive)
        try:
            await self._read(body, request.headers)
            await self._serve(scope, body, send)
        finally:
            self._under_way -= 1
            self._bytes -= body.size

    async def _read(self, body: _Body, headers: Headers) -> None:
        """Take the whole body; raises RefusedError where it is too large, slow or cut."""
        most = self._limits.body
        declared = headers.get("content-length", "")
        # Refused by its own words, before a byte of it is read; ``int`` of a thousand digits takes
        # time.
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > most):
            raise _too_large(most)
        with anyio.move_on_after(self._limits.seconds) as time:
            while got := await body.more():
                self._bytes += got
                if body.size > most:
                    raise _too_large(most)
                if self._bytes > most * BODIES:
                    raise busy("the bodies of other requests fill its memory")
        if time.cancelled_caught:
            raise RefusedError(408, f"the body took longer than {self._limits.seconds:g} s")

    async def _serve(self, scope: Scope, body: _Body, send: Send) -> None:
        """Let the routes answer, unless the caller leaves first: then what they wait for ends."""
        answered = False

        async def watch(message: Message) -> None:
            nonlocal answered
            await send(message)
            answered = message["type"] == "http.response.body" and not message.get("more_body")

        # When the caller has gone, the model's server is told to stop: a GPU writes for nobody
        # otherwise.
        with anyio.CancelScope() as answering:
            leaving = asyncio.create_task(body.left(answering))
            try:
                await self._app(scope, body.receive, watch)
            finally:
                leaving.cancel()
        state = Request(scope).state
        if answering.cancelled_caught and not answered:
            state.failed = getattr(state, "failed", LEFT)


class _Body:
    """The body of one request: read here, then handed on in one piece.

    Read before the route runs, so that a slow caller holds neither a thread nor a place at the
    model.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._pieces: list[bytes] = []
        self._whole = self._given = False
        self.size = 0

    async def more(self) -> int:
        """The size of one more piece; 0 once the body is whole."""
        while not self._whole:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the caller left before the body was whole")
            self._whole = not message.get("more_body", False)
            if piece := message.get("body", b""):
                self._pieces.append(piece)
                self.size += len(piece)
                return len(piece)
        return 0

    async def receive(self) -> Message:
        """The body; whoever asks again waits until the answer is given."""
        if self._given:
            # Starlette asks once more to hear of a disconnect; ``left`` listens for that.
            await asyncio.Event().wait()
        self._given = True
        body = b"".join(self._pieces)
        self._pieces.clear()
        return {"type": "http.request", "body": body, "more_body": False}

    async def left(self, answering: anyio.CancelScope) -> None:
        """End ``answering`` when the caller leaves."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        answering.cancel()


def _is_open(request: Request) -> bool:
    """Whether it needs no key; what has a body always does, or strangers would fill the memory."""
    path = _path(request.scope)
    reads = request.method in ("GET", "HEAD")
    return reads and (path in OPEN or (path == "/" and wants_page(request)))


def _path(scope: Scope) -> str:
    """The path below the prefix where the gateway is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def busy(why: str) -> RefusedError:
    """The error of a gateway that has no room now.

    503 and not 429: nobody's quota is used up, and clients of OpenAI try again after both.
    """
    return RefusedError(
        503, f"the gateway is busy: {why}", headers={"Retry-After": str(BUSY_AFTER)}
    )


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, f"the body is larger than {most} bytes; send a smaller picture")
