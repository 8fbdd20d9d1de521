"""OpenAI's chat completions on the gateway, for the ``openai`` package.

Pictures are read, checked and shrunk before the model's server is asked, and no answer is given
that was written without them; otherwise it is what LMDeploy itself would say.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, ClassVar, Literal, cast

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from starlette.responses import JSONResponse, StreamingResponse

from internvl_modal.client import AsyncClient
from internvl_modal.gateway_http import TOLD, Failure, RefusedError, as_openai, limited
from internvl_modal.gateway_metrics import Metrics
from internvl_modal.images.address import is_url
from internvl_modal.schema import (
    DETAIL_TILES,
    DescribeOptions,
    Description,
    Detail,
    Message,
    Options,
    explain,
)
from internvl_modal.streams import AsyncStream

MAX_PICTURES = 16
"""Pictures of one request: each address may hold 100 MiB, and a context few pictures."""
NEUTRAL: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "top_logprobs": (0,),
}
"""Fields that are not supported, and their values that ask for nothing."""


class _Sent(BaseModel):
    """A part of a request; what is null or empty counts as not sent."""

    model_config = ConfigDict(extra="forbid")
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no answer."""

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {
            name: item
            for name, item in value.items()
            if name not in cls.ignored and item not in (None, [], {})
        }


class ImageUrl(_Sent):
    """Where a picture is, and how closely to look at it."""

    url: str = Field(description="A data: or http(s) URL.")
    detail: Detail = "medium"

    @field_validator("url")
    @classmethod
    def _no_path(cls, url: str) -> str:
        if url[:5].lower() != "data:" and not is_url(url):
            raise ValueError("only data:, http:// and https:// URLs are read")
        return url


class ImagePart(_Sent):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(_Sent):
    """Text in a message."""

    type: Literal["text"]
    text: str = ""


class ChatMessage(_Sent):
    """One turn."""

    ignored = frozenset({"annotations", "name", "reasoning_content", "refusal"})

    role: Literal["system", "developer", "user", "assistant"]
    content: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] = []

    @field_validator("content", mode="before")
    @classmethod
    def _in_parts(cls, content: object) -> object:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def pictures(self) -> list[ImageUrl]:
        """Its pictures, in order."""
        return [part.image_url for part in self.content if isinstance(part, ImagePart)]

    @property
    def turn(self) -> Message:
        """The same as the client takes it."""
        texts = [part.text for part in self.content if isinstance(part, TextPart)]
        role: Any = "system" if self.role == "developer" else self.role
        images = tuple(picture.url for picture in self.pictures)
        return Message(role=role, text="\n".join(texts), images=images)


class StreamOptions(_Sent):
    """What a stream shall tell besides text."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatBody(_Sent):
    """The body of ``POST /v1/chat/completions``."""

    model_config = ConfigDict(extra="allow")
    ignored = frozenset(
        {
            "metadata",
            "parallel_tool_calls",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
        }
    )

    model: str = ""
    messages: list[ChatMessage]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = Field(None, description="0, greedy, by default.")
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    repetition_penalty: float | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @field_validator("messages")
    @classmethod
    def _question(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "user":
            raise ValueError("must end with one of role 'user'")
        pictures = sum(len(message.pictures) for message in messages)
        if pictures > MAX_PICTURES:
            raise ValueError(f"{pictures} pictures are more than {MAX_PICTURES}; leave some out")
        return messages

    @property
    def options(self) -> Options:
        """The options as the client takes them; the finest ``detail`` of all pictures."""
        names = ("temperature", "top_p", "top_k", "seed", "stop", "repetition_penalty")
        given = {name: getattr(self, name) for name in names}
        newer = self.max_completion_tokens
        given["max_tokens"] = self.max_tokens if newer is None else newer
        details = [picture.detail for message in self.messages for picture in message.pictures]
        given["detail"] = max(details, key=_fineness, default=None)
        return cast(Options, {name: value for name, value in given.items() if value is not None})

    def check(self) -> None:
        """Raise what is wrong with fields that cannot be honoured, or not with their values."""
        for name, value in (self.model_extra or {}).items():
            if value not in NEUTRAL.get(name, ()):
                raise _unsupported(name, " with this value")
        DescribeOptions.model_validate(self.options)


def _unsupported(param: str, how: str = "") -> RefusedError:
    text = f"{param!r:.100} is not supported{how}; leave it out"
    return RefusedError(422, text, param=param, code="unsupported_parameter")


def _fineness(detail: Detail) -> float:
    """Most tiles per picture; "auto" takes at most those of "medium"."""
    if isinstance(detail, int):
        return detail
    return DETAIL_TILES.get(detail, DETAIL_TILES["medium"] - 0.5)


def openai_router(client: AsyncClient, metrics: Metrics, max_body: int) -> APIRouter:
    """The addresses below ``/v1``."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(as_openai)])

    @router.get("/models")
    async def models() -> dict[str, object]:
        """The model that answers; its server is asked unless its name is known, as on Modal."""
        entry = {"object": "model", "created": 0, "owned_by": "internvl-modal"}
        return {"object": "list", "data": [{"id": await _model_of(client), **entry}]}

    @router.post("/chat/completions", openapi_extra=_request_body())
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation, at once or as a stream, as OpenAI's API does."""
        body, messages = await _read(request, max_body)
        model = await _model_of(client)
        if body.model not in ("", model):
            text = f"the model {body.model!r:.100} is not served here; {model!r} is"
            raise RefusedError(404, text, param="model", code="model_not_found")
        if body.stream:
            answer = client.stream_chat(messages, **body.options)
            pieces = aiter(answer)
            first = await anext(pieces, "")  # an error before it is a plain one
            said = _Said(request, metrics, model, usage=body.stream_options.include_usage)
            events = said.events(first, pieces, answer)
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        found = await client.chat(messages, **body.options)
        metrics.tokens.inc(found.usage.completion_tokens)
        return JSONResponse(_completion(request, found))

    return router


async def _model_of(client: AsyncClient) -> str:
    """The one model that the client asks for, whatever else its server offers."""
    return (await client._run(client._core.ready())).model


async def _read(request: Request, max_body: int) -> tuple[ChatBody, list[Message]]:
    try:
        body = ChatBody.model_validate_json(await limited(request, max_body).body())
        body.check()
        return body, [message.turn for message in body.messages]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or None
        if where and first["type"] == "extra_forbidden":
            raise _unsupported(where) from error
        raise RefusedError(422, explain(error), param=where) from error


def _usage(found: Description) -> dict[str, int]:
    return {**found.usage.model_dump(), "total_tokens": found.usage.total_tokens}


def _proof(found: Description) -> dict[str, object]:
    """Our own fields beside OpenAI's."""
    return {"seen": found.seen, "warnings": found.warnings}


def _completion(request: Request, found: Description) -> dict[str, object]:
    message = {"role": "assistant", "content": found.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None}
    return {
        "id": f"chatcmpl-{request.state.request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": found.model,
        "choices": [{**choice, "finish_reason": found.finish_reason}],
        "usage": _usage(found),
        **_proof(found),
    }


class _Said:
    """One streamed answer as server-sent events."""

    def __init__(self, request: Request, metrics: Metrics, model: str, *, usage: bool) -> None:
        self._request, self._metrics, self._tell_usage = request, metrics, usage
        self._head = {
            "id": f"chatcmpl-{request.state.request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    async def events(
        self, first: str, pieces: AsyncGenerator[str, None], answer: AsyncStream
    ) -> AsyncIterator[bytes]:
        """``first``, the other pieces and the end; an error is an event without ``[DONE]``."""
        async with aclosing(pieces):
            try:
                yield self._chunk({"role": "assistant", "content": first})
                async for piece in pieces:
                    yield self._chunk({"content": piece})
                for event in self._end(answer.description):
                    yield event
            except Exception as error:
                failure = Failure.of(error, self._request)
                self._request.state.failed = failure.status
                yield _event(failure.document(self._request))
                if not isinstance(error, TOLD):
                    raise

    def _end(self, found: Description) -> list[bytes]:
        self._metrics.tokens.inc(found.usage.completion_tokens)
        events = [self._chunk({}, found.finish_reason, **_proof(found))]
        if self._tell_usage:
            events.append(_event({**self._head, "choices": [], "usage": _usage(found)}))
        return [*events, b"data: [DONE]\n\n"]

    def _chunk(self, delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._tell_usage else {}
        return _event({**self._head, "choices": [choice], **usage, **more})


def _event(document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _request_body() -> dict[str, Any]:
    schema = ChatBody.model_json_schema()
    content = {"application/json": {"schema": _inlined(schema, schema["$defs"])}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema without references, so that it can stand inside another document."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    left_out = ("$defs", "discriminator")
    return {k: _inlined(item, definitions) for k, item in node.items() if k not in left_out}
