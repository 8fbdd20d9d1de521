"""OpenAI's chat completions on the gateway, for the ``openai`` package.

Pictures are read, checked and shrunk before the model's server is asked, and no answer is given
that was written without them; otherwise it is what LMDeploy itself would say.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from starlette.responses import JSONResponse, StreamingResponse

from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.streams import AsyncStream
from internvl_modal.gateway.errors import TOLD, Failure, RefusedError, as_openai
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.gateway.middleware import limited
from internvl_modal.gateway.openai_schema import ChatBody, unsupported
from internvl_modal.schema.inputs import Message
from internvl_modal.schema.results import Description
from internvl_modal.schema.validation import explain


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
            raise unsupported(where) from error
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
