"""The simple REST endpoint in front of a model: a picture in, its description out.

    POST /   {"image_data": base64}  ->  {"description": text}

An ASGI app over the public ``AsyncClient``, so pictures are read, checked and shrunk here, before
any GPU is asked. Needs the extra ``gateway``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message

from internvl_modal.client import AsyncClient
from internvl_modal.errors import (
    ConfigError,
    ContextLengthError,
    DeadlineExceededError,
    ImageError,
    InternVLError,
    RateLimitedError,
    ServerUnavailableError,
)
from internvl_modal.gateway_metrics import Metrics
from internvl_modal.schema import DEFAULT_PROMPT, Detail, Options, Usage, explain

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request body; base64 makes a picture a third larger."""
RETRY_AFTER = 30
"""Seconds to wait for a cold server when it does not say itself."""

STATUS: tuple[tuple[type[InternVLError], int], ...] = (
    (ImageError, 422),
    (ConfigError, 422),
    (ContextLengthError, 422),
    (RateLimitedError, 429),
    (ServerUnavailableError, 503),
    (DeadlineExceededError, 504),
)
"""What each error is to the caller; any other of ours is a 502, the fault of the model's server."""

RequestHandler = Callable[[Request], Awaitable[Response]]


class DescribeBody(BaseModel):
    """The body of ``POST /``, as JSON or as the fields of a form."""

    model_config = ConfigDict(extra="forbid")

    image_data: str = Field(description="The picture in base64, or as a data URL.")
    prompt: str = DEFAULT_PROMPT
    detail: Detail = "medium"
    max_tokens: int = Field(1024, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)

    @property
    def options(self) -> Options:
        """The options as the client takes them."""
        return Options(detail=self.detail, max_tokens=self.max_tokens, temperature=self.temperature)


class Answer(BaseModel):
    """What ``POST /`` answers."""

    description: str
    model: str
    finish_reason: str
    usage: Usage
    warnings: tuple[str, ...] = ()


class RefusedError(Exception):
    """A request that the gateway answers itself."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def create_app(
    client: AsyncClient, *, api_key: SecretStr | str, max_body: int = MAX_BODY
) -> FastAPI:
    """The gateway as an ASGI app that asks ``client``, which it closes when it ends.

    Callers show ``api_key`` as a bearer or as the password of HTTP basic authentication.
    """
    key = api_key if isinstance(api_key, SecretStr) else SecretStr(api_key)
    metrics = Metrics(CollectorRegistry())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    def check_key(authorization: Annotated[str, Header()] = "") -> None:
        _check_key(authorization, key)

    app = FastAPI(title="InternVL gateway", lifespan=lifespan, redoc_url=None)
    app.middleware("http")(_observe(metrics))
    app.add_exception_handler(InternVLError, _our_error)
    app.add_exception_handler(RefusedError, _refused)
    keyed = [Depends(check_key)]

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the gateway runs; the model's server is not asked, so none is woken."""
        return {"status": "ok"}

    @app.get("/metrics", dependencies=keyed)
    async def show_metrics() -> Response:
        """Counters and latencies in Prometheus' format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/", dependencies=keyed, openapi_extra=_REQUEST_BODY)
    async def describe(request: Request) -> Answer:
        """Describe one picture, sent as JSON or as a multipart upload named ``image``."""
        image, body = await _read(request, max_body)
        found = await client.describe(image, body.prompt, **body.options)
        metrics.tokens.inc(found.usage.completion_tokens)
        return Answer(
            description=found.text,
            model=found.model,
            finish_reason=found.finish_reason,
            usage=found.usage,
            warnings=found.warnings,
        )

    return app


_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": DescribeBody.model_json_schema()}},
    }
}


def _check_key(authorization: str, key: SecretStr) -> None:
    """Compare in constant time; raises RefusedError."""
    scheme, _, shown = authorization.partition(" ")
    if scheme.lower() == "basic":
        shown = _basic_password(shown)
    expected = key.get_secret_value().encode()
    if not hmac.compare_digest(shown.strip().encode(), expected):
        raise RefusedError(401, "the API key is missing or wrong", WWW_Authenticate="Bearer")


def _basic_password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


async def _read(request: Request, max_body: int) -> tuple[bytes, DescribeBody]:
    """The picture's bytes and the rest of the body; raises RefusedError."""
    request = _limited(request, max_body)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            async with request.form(max_files=1, max_fields=8) as form:
                return await _read_form(form)
        body = DescribeBody.model_validate_json(await request.body())
    except ValidationError as error:
        raise RefusedError(422, explain(error)) from error
    return _decode(body.image_data), body


def _limited(request: Request, max_body: int) -> Request:
    """The same request, which refuses to be read beyond ``max_body`` bytes."""
    declared = request.headers.get("content-length", "0")
    left = max_body

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0 or int(declared) > max_body:
            text = f"the body is larger than {max_body} bytes; send a smaller picture"
            raise RefusedError(413, text)
        return message

    return Request(request.scope, receive)


async def _read_form(form: FormData) -> tuple[bytes, DescribeBody]:
    upload = form.get("image")
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    if detail := fields.get("detail", "").strip():
        fields["detail"] = int(detail) if detail.isdecimal() else detail  # type: ignore[assignment]
    if not isinstance(upload, UploadFile):
        body = DescribeBody.model_validate(fields)
        return _decode(body.image_data), body
    body = DescribeBody.model_validate({**fields, "image_data": ""})
    return await upload.read(), body


def _decode(image_data: str) -> bytes:
    """Bytes of a picture from base64, with or without a data URL around it."""
    encoded = image_data.partition(",")[2] if image_data.startswith("data:") else image_data
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(422, f"image_data is not base64: {error}") from error


def _observe(metrics: Metrics) -> Callable[[Request, RequestHandler], Awaitable[Response]]:
    async def observe(request: Request, call_next: RequestHandler) -> Response:
        begun = time.monotonic()
        given = request.headers.get("x-request-id", "")
        usable = given.isascii() and given.isprintable() and 0 < len(given) <= 128
        request.state.request_id = given if usable else uuid.uuid4().hex
        response = await call_next(request)
        response.headers["X-Request-ID"] = request.state.request_id
        metrics.observe(request, response.status_code, time.monotonic() - begun)
        return response

    return observe


async def _our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InternVLError)
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 502)
    headers = {}
    if error.retryable or isinstance(error, DeadlineExceededError):
        wait = getattr(error, "retry_after", None) or RETRY_AFTER
        headers["Retry-After"] = str(int(wait))
    return _error_response(request, status, type(error).__name__, error, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _error_response(
        request, error.status, HTTPStatus(error.status).name.lower(), error, error.headers
    )


def _error_response(
    request: Request, status: int, kind: str, error: Exception, headers: dict[str, str]
) -> Response:
    content = {"type": kind, "message": str(error), "request_id": request.state.request_id}
    return JSONResponse({"error": content}, status, headers)
