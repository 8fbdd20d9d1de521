"""What every address of the gateway shares: the key, the limit of a body, errors, request ids."""

from __future__ import annotations

import base64
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Security
from fastapi.responses import JSONResponse
from fastapi.security import (
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
)
from pydantic import SecretStr
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from internvl_modal.errors import (
    ContextLengthError,
    DeadlineExceededError,
    ImageError,
    InternVLError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.gateway_metrics import Metrics

log = logging.getLogger(__name__)

RETRY_AFTER = 30
"""Seconds to wait for a cold server when it does not say itself."""
SEND = "send it in the request itself, as an ordinary JPEG or PNG"
"""What callers can do about a picture; the hints of ImageError are for users of the client."""
NO_RETRY = {"X-Should-Retry": "false"}
"""Without it the openai package asks three times."""

STATUS: tuple[tuple[type[InternVLError], int, str | None], ...] = (
    (ImageError, 422, "invalid_image"),
    (ContextLengthError, 422, "context_length_exceeded"),
    (RateLimitedError, 429, "rate_limit_exceeded"),
    (ServerUnavailableError, 503, None),
    (DeadlineExceededError, 504, None),
)
"""Status and code of each error; any other of TOLD is a BAD_GATEWAY."""
BAD_GATEWAY = 502
"""The model's server is at fault; what helps, a hint for whoever runs the gateway, is logged."""
TOLD = (ImageError, ServerError)
"""Errors of ours that callers are told; the others are for whoever runs the gateway."""


class RefusedError(Exception):
    """A request that the gateway answers itself; ``param`` names the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = headers or {}


@dataclass(frozen=True)
class Failure:
    """What an error is to the caller, in the form that the ``openai`` package reads as well."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception, request: Request) -> Failure:
        """Of any error; what the caller cannot have caused is told to the log only."""
        if isinstance(error, TOLD):
            found = cls._of_ours(error)
            if found.status == BAD_GATEWAY:
                log.warning("request %s: %s", request.state.request_id, error)
            return found
        if isinstance(error, RefusedError):
            kind = HTTPStatus(error.status).name.lower()
            return cls(error.status, str(error), kind, error.param, error.code, error.headers)
        if isinstance(error, HTTPException):
            kind = HTTPStatus(error.status_code).name.lower()
            return cls(error.status_code, error.detail, kind, headers=error.headers or {})
        text = "the gateway failed; its log says why"
        return cls(500, text, "internal_server_error", headers=NO_RETRY)

    @classmethod
    def _of_ours(cls, error: ImageError | ServerError) -> Failure:
        found = ((status, code) for kind, status, code in STATUS if isinstance(error, kind))
        status, code = next(found, (BAD_GATEWAY, None))
        headers: Mapping[str, str] = {}
        if error.retryable or isinstance(error, DeadlineExceededError):
            wait = getattr(error, "retry_after", None) or RETRY_AFTER
            headers = {"Retry-After": str(int(wait))}
        elif status >= 500:
            headers = NO_RETRY
        told = str(error)
        if isinstance(error, ImageError):
            told = f"{error.message} ({SEND})"
        elif status == BAD_GATEWAY:
            told = error.message
        return cls(status, told, type(error).__name__, code=code, headers=headers)

    def document(self, request: Request) -> dict[str, dict[str, str | None]]:
        """The body that says it."""
        told = {name: getattr(self, name) for name in ("message", "type", "param", "code")}
        return {"error": {**told, "request_id": request.state.request_id}}

    def response(self, request: Request) -> Response:
        """The whole answer."""
        openai = getattr(request.state, "openai", False) and self.status == 422
        return JSONResponse(
            self.document(request), 400 if openai else self.status, dict(self.headers)
        )


def as_openai(request: Request) -> None:
    """The dependency for OpenAI's users, who know a request that is wrong by status 400."""
    request.state.openai = True


def add_errors(app: FastAPI) -> None:
    """Answer every error that callers are told in one form; ``Observed`` answers the others."""

    async def answer(request: Request, error: Exception) -> Response:
        return Failure.of(error, request).response(request)

    for kind in (*TOLD, RefusedError, HTTPException):
        app.add_exception_handler(kind, answer)


class Observed:
    """ASGI middleware: gives each request an id, counts it, and answers unexpected errors."""

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
        usable = given.isascii() and given.isprintable() and 0 < len(given) <= 128
        request.state.request_id = given if usable else uuid.uuid4().hex

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request.state.request_id
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if not status:
                await Failure.of(error, request).response(request)(scope, receive, watch)
            raise  # for the server's log
        finally:
            told = getattr(request.state, "failed", status)
            self._metrics.observe(request, told, time.monotonic() - begun)


class _Basic(HTTPBasic):
    """FastAPI's for the schema only: it reads ASCII only, and a user's name may be in any code."""

    async def __call__(  # type: ignore[override]  # as FastAPI's own
        self, request: Request
    ) -> HTTPBasicCredentials | None:
        """The password; None where the header holds none that can be read."""
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            password = base64.b64decode(shown.strip(), validate=True).partition(b":")[2].decode()
        except ValueError:
            return None
        return HTTPBasicCredentials(username="", password=password)


_BEARER = HTTPBearer(auto_error=False, description="The gateway's key.")
_BASIC = _Basic(auto_error=False, description="Any user; the key is the password.")


def key_check(key: SecretStr) -> Callable[..., None]:
    """The dependency that lets nobody in without ``key``."""
    expected = key.get_secret_value().encode()

    def check(
        token: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        login: Annotated[HTTPBasicCredentials | None, Security(_BASIC)],
    ) -> None:
        shown = token.credentials if token else login.password if login else ""
        if not hmac.compare_digest(shown.strip().encode(), expected):
            raise RefusedError(
                401,
                "the API key is missing or wrong",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def limited(request: Request, max_body: int) -> Request:
    """The same request, which refuses to be read beyond ``max_body`` bytes."""
    declared = request.headers.get("content-length", "0")
    left = max_body

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the caller left before the body was whole")
        left -= len(message.get("body", b""))
        if left < 0 or int(declared) > max_body:
            text = f"the body is larger than {max_body} bytes; send a smaller picture"
            raise RefusedError(413, text)
        return message

    return Request(request.scope, receive)
