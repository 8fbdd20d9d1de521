"""The REST endpoint in front of a model: pictures in, text out.

    POST /                     {"image_data": base64}  ->  {"description": text}, or a stream
    POST /v1/chat/completions  as the ``openai`` package sends it

An ASGI app over the public ``AsyncClient``, so pictures are read, checked and shrunk here, before
any GPU is asked. Needs the extra ``gateway``.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from internvl_modal.errors import MissingExtraError

try:
    from fastapi import APIRouter, Request, Response
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.datastructures import FormData, UploadFile
    from starlette.responses import PlainTextResponse
except ImportError as missing:
    raise MissingExtraError(missing.name or "fastapi", "gateway") from missing
from internvl_modal.gateway.asking import Model
from internvl_modal.gateway.bodies import WHOLE, first_of, read_json
from internvl_modal.gateway.describe_answers import Answer, Answers
from internvl_modal.gateway.documents import ASKING, KEYED, STREAM, inlined
from internvl_modal.gateway.errors import RefusedError
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.images.names import is_url
from internvl_modal.schema.inputs import DEFAULT_PROMPT
from internvl_modal.schema.options import Detail, Options
from internvl_modal.schema.validation import explain


class DescribeBody(BaseModel):
    """The body of ``POST /``, as JSON or as the fields of a form."""

    model_config = ConfigDict(extra="forbid")

    image_data: str = Field(
        description="The picture in base64, or as a data URL.", json_schema_extra={"format": "byte"}
    )
    prompt: str = DEFAULT_PROMPT
    detail: Annotated[Detail, WHOLE] = "medium"
    max_tokens: Annotated[int, WHOLE] = Field(1024, ge=1, lt=2**31)
    temperature: float = Field(0.0, ge=0, le=2)
    stream: bool = Field(False, description="Send the text as it comes, as server-sent events.")

    @property
    def options(self) -> Options:
        """The options as the client takes them."""
        return Options(detail=self.detail, max_tokens=self.max_tokens, temperature=self.temperature)


def describe_router(model: Model, metrics: Metrics) -> APIRouter:
    """``POST /``, ``GET /metrics``: the routes of a plain REST caller."""
    router = APIRouter()

    @router.get("/metrics", response_class=PlainTextResponse, responses=KEYED)
    async def show_metrics() -> Response:
        """Counters and latencies in Prometheus' format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @router.post(
        "/", response_model=Answer, openapi_extra=_REQUEST_BODY, responses={**ASKING, **STREAM}
    )
    async def describe(request: Request) -> Answer | Response:
        """Describe one picture, sent as JSON or as a multipart upload named ``image``."""
        image, body = await _read(request)
        answers = Answers(request, model, metrics)
        if body.stream:
            return await answers.streamed(model.describing(image, body.prompt, body.options))
        return answers.of(await model.describe(image, body.prompt, body.options))

    return router


def _form_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the multipart form: the fields of the JSON, and an upload for the picture."""
    others = {name: field for name, field in schema["properties"].items() if name != "image_data"}
    # Written by hand: one address takes two media types.
    upload = {"type": "string", "format": "binary", "description": "The picture's file."}
    return {
        "type": "object",
        "properties": {"image": upload, **others},
        "required": ["image"],
        "additionalProperties": False,
    }


_JSON_SCHEMA = inlined(DescribeBody)
_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _JSON_SCHEMA},
            "multipart/form-data": {"schema": _form_schema(_JSON_SCHEMA)},
        },
    }
}


MOST_FIELD = 2**40
"""Bytes of a part of a form: the limit of the whole body has been kept before.

Starlette's own, a megabyte, would refuse a picture in base64 that stands in a field.
"""
_HOW = "send JSON with image_data, or a multipart form with a file named image"


async def _read(request: Request) -> tuple[bytes, DescribeBody]:
    """The picture's bytes and the rest of the body; raises RefusedError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            async with request.form(max_files=1, max_fields=8, max_part_size=MOST_FIELD) as form:
                return await _read_form(form)
        body = await read_json(await request.body(), DescribeBody)
    except ValidationError as error:
        absent = first_of(error)[0] in ("json_invalid", "missing")
        raise RefusedError(422, explain(error) + (f" ({_HOW})" if absent else "")) from error
    return _decode(body.image_data), body


async def _read_form(form: FormData) -> tuple[bytes, DescribeBody]:
    """The picture of a form, as a file or in base64, and its other fields; raises RefusedError."""
    if len(form.multi_items()) > len(form):
        raise RefusedError(422, "the form holds a field twice: send each once")
    upload = form.get("image")
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    if detail := fields.get("detail", "").strip():
        number = len(detail) < 4 and detail.isdecimal()
        # A form has text only, and the model is strict: "12" must become a number.
        fields["detail"] = int(detail) if number else detail  # type: ignore[assignment]
    if not isinstance(upload, UploadFile):
        body = DescribeBody.model_validate(fields)
        return _decode(body.image_data), body
    if "image_data" in fields:
        raise RefusedError(422, "the form holds a file named image and image_data: send one")
    body = DescribeBody.model_validate({**fields, "image_data": ""})
    return await upload.read(), body


def _decode(image_data: str) -> bytes:
    """Bytes of a picture from base64, with or without a data URL around it."""
    if is_url(image_data):
        text = "image_data is a URL, not base64; POST /v1/chat/completions fetches URLs"
        raise RefusedError(422, text)
    encoded = image_data.partition(",")[2] if image_data.startswith("data:") else image_data
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(422, f"image_data is not base64: {error}") from error
