"""What stands before everything else: request ids, counting, logging, answers to any error."""

from __future__ import annotations

import logging
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from internvl_modal.gateway.errors import Failure, RefusedError
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.gateway.tracing import callers_trace

log = logging.getLogger(f"{__package__}.access")
"""At INFO a line for each request, by the id that its answer has."""
LONGEST = 200
"""Characters of an address in the log."""


class Observed:
    """ASGI middleware: gives each request an id, counts and logs it, answers unexpected errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        # It is written into logs and headers: no line breaks, and no megabytes.
        usable = given.isascii() and given.isprintable() and 0 < len(given) <= 128
        request.state.request_id = given if usable else uuid.uuid4().hex

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request.state.request_id
            await send(message)

        try:
            with callers_trace(request.headers):
                await self._app(scope, receive, watch)
        except Exception as error:
            # Once the head is sent nothing can be answered any more.
            if not status:
                await Failure.of(error, request).response(request)(scope, receive, watch)
            if not isinstance(error, RefusedError):
                raise  # for the server's log
        finally:
            # A stream that breaks has said 200 before; the count should know better.
            told = getattr(request.state, "failed", status)
            self._metrics.observe(request, told, time.monotonic() - begun)
            _log(request, told, time.monotonic() - begun)


def _log(request: Request, status: int, seconds: float) -> None:
    """Without the query, which may hold anything, and with no line break in the address."""
    path = quote(request.scope["path"])[:LONGEST]
    told = (request.method[:LONGEST], path, status, seconds, request.state.request_id)
    log.info("%s %s %d in %.2f s, request %s", *told)
