"""What every address of the gateway shares: the key, the limit of a body, errors, request ids.

Callers are strangers to whoever runs the gateway: they are told what they can mend, and the log is
told the rest. OpenAI's clients decide by status and headers whether to ask again, so these are
chosen for what they make clients do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from internvl_modal.errors import (
    ContextLengthError,
    DeadlineExceededError,
    ImageError,
    InternVLError,
    OutOfResourcesError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    ServerUnavailableError,
)

log = logging.getLogger(__name__)

RETRY_AFTER = 30
"""Seconds to wait for a cold server when it does not say itself.

A cold start takes minutes: clients that come back every half minute are no load.
"""
SEND = "send it in the request itself, as an ordinary JPEG or PNG"
"""What callers can do about a picture; the hints of ImageError are for users of the client."""
NO_RETRY = {"X-Should-Retry": "false"}
"""Without it the openai package asks three times.

It obeys this header of its own making.
"""

# The first that an error is an instance of: kinds stand before their bases.
STATUS: tuple[tuple[type[InternVLError], int, str | None], ...] = (
    (ImageError, 422, "invalid_image"),
    (ContextLengthError, 422, "context_length_exceeded"),
    (RateLimitedError, 429, "rate_limit_exceeded"),
    (ServerUnavailableError, 503, None),
    (DeadlineExceededError, 504, None),
)
"""Status and code of each error; any other of TOLD is a BAD_GATEWAY."""
CALLERS = (400, 403, 413, 422)
"""Statuses of a server that refuses what the caller has asked, moderation included."""
BAD_GATEWAY = 502
"""The model's server is at fault; what helps, a hint for whoever runs the gateway, is logged.

Not 500, which says that the gateway itself has failed.
"""
TOLD = (ImageError, ServerError)
"""Errors of ours that callers are told; the others are for whoever runs the gateway."""


class RefusedError(Exception):
    """A request that the gateway answers itself; ``param`` names the field that is wrong.

    Not an InternVLError: it never leaves the gateway.
    """

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
        """Of any error; what the caller cannot have caused is told to the log only.

        ``request`` must have been given its id. A stranger's error is never shown: its text may
        hold a path or a key.
        """
        if isinstance(error, TOLD):
            found = cls._of_ours(error)
            if found.status >= 500:
                log.warning("request %s: %s", request.state.request_id, error)
            if isinstance(error, ServerError):
                found = replace(found, message=request.app.state.telling.masked(found.message))
            return found
        if isinstance(error, OutOfResourcesError):
            log.warning("request %s: %s", request.state.request_id, error)
            text, headers = "the gateway has no memory left; try again", {"Retry-After": "5"}
            return cls(503, text, "service_unavailable", headers=headers)
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
        """Status, words and headers for an error of ours that callers are told."""
        found = ((status, code) for kind, status, code in STATUS if isinstance(error, kind))
        status, code = next(found, (BAD_GATEWAY, None))
        # The model's server has refused what the caller wrote: to the caller a mistake of the
        # request.
        if isinstance(error, RequestRejectedError) and error.status in CALLERS:
            status = 422
        headers: Mapping[str, str] = {}
        if error.retryable or isinstance(error, DeadlineExceededError):
            wait = getattr(error, "retry_after", None) or RETRY_AFTER
            headers = {"Retry-After": str(int(wait))}
        elif status >= 500:
            headers = NO_RETRY
        return cls(status, _words(error), type(error).__name__, code=code, headers=headers)

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


def _words(error: ImageError | ServerError) -> str:
    """What callers read of it: hints are for whoever runs the gateway."""
    if isinstance(error, ImageError):
        return f"{error.message} ({SEND})"
    if isinstance(error, ServerUnavailableError) and error.status is None:
        return "the model's server does not answer"
    return str(error) if isinstance(error, ContextLengthError) else error.message


def as_openai(request: Request) -> None:
    """The dependency for OpenAI's users, who know a request that is wrong by status 400."""
    request.state.openai = True


def add_errors(app: FastAPI) -> None:
    """Answer every error that callers are told in one form; ``Observed`` answers the others."""

    async def answer(request: Request, error: Exception) -> Response:
        return Failure.of(error, request).response(request)

    for kind in (*TOLD, OutOfResourcesError, RefusedError, HTTPException):
        app.add_exception_handler(kind, answer)
