"""OpenAI's chat completions on the gateway, for the ``openai`` package and others like it.

Pictures are read, checked and shrunk before the model's server is asked, and no answer is given
that was written without them; otherwise it is what that server itself would say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from starlette.responses import JSONResponse

from internvl_modal.errors import ConfigError
from internvl_modal.flows.relay import Relayed
from internvl_modal.flows.typed import Wanted
from internvl_modal.gateway.asking import Model
from internvl_modal.gateway.bodies import first_of, read_json
from internvl_modal.gateway.documents import ASKING, KNOWING, STREAM, Problem, inlined
from internvl_modal.gateway.errors import RefusedError, as_openai
from internvl_modal.gateway.event_stream import event_stream
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.gateway.openai_answers import (
    Completion,
    Events,
    ModelCard,
    ModelList,
    completion,
)
from internvl_modal.gateway.openai_parameters import passed_on, unsupported
from internvl_modal.gateway.openai_schema import AnyObject, ChatBody, SchemaObject
from internvl_modal.protocol.dialects.registry import dialect_of
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.json_schema import reader
from internvl_modal.schema.validation import explain

_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such model."}
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": inlined(ChatBody)}},
    }
}


def openai_router(model: Model, metrics: Metrics) -> APIRouter:
    """The addresses below ``/v1``."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(as_openai)])

    @router.get("/models", responses=KNOWING)
    async def models() -> ModelList:
        """The model that answers; its server is asked unless its name is known, as on Modal."""
        return ModelList(data=[ModelCard(id=(await model.ready()).model)])

    @router.get("/models/{name:path}", responses={**KNOWING, **_NOT_FOUND})
    async def one_model(name: str) -> ModelCard:
        """The same by its name."""
        return ModelCard(id=_served(name, (await model.ready()).model))

    @router.post(
        "/chat/completions",
        response_model=Completion,
        responses={**ASKING, **_NOT_FOUND, **STREAM},
        openapi_extra=_BODY,
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation, at once or as a stream, as OpenAI's API does."""
        return await _Question(request, model, metrics).answer(await _read(request))

    @router.api_route("/responses", methods=_ANY, include_in_schema=False)
    @router.api_route("/responses/{rest:path}", methods=_ANY, include_in_schema=False)
    async def responses() -> Response:
        """Say that OpenAI's newer protocol is another one."""
        raise RefusedError(
            404, "the Responses API is not served here; use /v1/chat/completions", code="not_found"
        )

    return router


_ANY = ["GET", "POST", "DELETE"]


def _served(name: str | None, known: str) -> str:
    """The model's name; raises RefusedError where another was asked for.

    Passing over it would answer as a model that is not there.
    """
    if name and name != known:
        text = f"the model {name!r:.100} is not served here; {known!r} is"
        raise RefusedError(404, text, param="model", code="model_not_found")
    return known


async def _read(request: Request) -> ChatBody:
    """The body, checked as far as it can be before the model's server is known."""
    try:
        body = await read_json(await request.body(), ChatBody)
        body.check()
        for message in body.messages:
            _ = message.turn
        return body
    except ValidationError as error:
        kind, where = first_of(error)
        if where and kind == "extra_forbidden":
            raise unsupported(where) from error
        raise RefusedError(422, explain(error), param=where) from error


class _Question:
    """One request for an answer, or for several."""

    def __init__(self, request: Request, model: Model, metrics: Metrics) -> None:
        self._request, self._model, self._metrics = request, model, metrics

    async def answer(self, body: ChatBody) -> Response:
        """The whole answer, or the stream of it."""
        # A schema can take a second to check; nobody else shall wait for it.
        wanted = await asyncio.to_thread(_wanted, body)
        # Before the pictures: what the server takes depends on what it is.
        ready = await self._model.ready()
        model = _served(body.model, ready.model)
        fields = passed_on(body.engine, dialect_of(ready.capabilities))
        told = body.stream_options is not None and body.stream_options.include_usage is True
        events = Events(self._request, self._metrics, model, usage=told)
        # JSON answers may need a repair, and several answers have one stream: they come at the end.
        if body.stream and wanted is None and (body.n or 1) == 1:
            return await self._streamed(body, fields, events)
        seeds = range(body.n or 1)
        found = await _all([self._one(body, fields, wanted, number) for number in seeds])
        self._metrics.tokens.inc(sum(one.description.usage.completion_tokens for one in found))
        if body.stream:
            return event_stream(self._request, events.of_answers(found))
        return JSONResponse(completion(self._request, found).model_dump())

    async def _one(
        self, body: ChatBody, fields: Json, wanted: Wanted[Json] | None, number: int
    ) -> Relayed:
        """One of ``n`` answers, with a seed of its own where the caller gave one."""
        messages, options = [message.turn for message in body.messages], body.options
        seed = options.get("seed")
        if seed is not None:
            # With one seed for all, ``n`` answers would be ``n`` times the same.
            options["seed"] = (seed + number) % 2**32
        if wanted is None:
            return await self._model.answer(messages, options, fields)
        return await self._model.answer_object(messages, options, fields, wanted)

    async def _streamed(self, body: ChatBody, fields: Json, events: Events) -> Response:
        messages = [message.turn for message in body.messages]
        answer = self._model.stream(messages, body.options, fields)
        pieces = aiter(answer)
        # A status can be sent only before the first byte: so the first piece is waited for.
        first = await anext(pieces, "")  # an error before it is a plain one
        return event_stream(self._request, events.of_stream(first, pieces, answer))


async def _all(asked: Sequence[Coroutine[Any, Any, Relayed]]) -> list[Relayed]:
    """Every answer; one that fails ends the others."""
    tasks = [asyncio.create_task(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _wanted(body: ChatBody) -> Wanted[Json] | None:
    """The object that the caller asks for, if one."""
    form = body.response_format
    if not isinstance(form, AnyObject | SchemaObject):
        return None
    given = form.schema_ if isinstance(form, AnyObject) else form.json_schema.schema_
    schema: Json = {"type": "object"} if given is None else given
    return Wanted(schema, _reader(schema))


def _reader(schema: Json) -> Callable[[Json], Json]:
    """What reads an object; what is wrong with the schema is the caller's mistake."""
    with _refused():
        read = reader(schema)

    def told(found: Json) -> Json:
        with _refused():
            return read(found)

    return told


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise RefusedError(422, error.message, param="response_format") from error
