"""Answers as OpenAI's API has them: completions and chunks, with ``seen`` and ``warnings``.

Models and not dictionaries, so that the OpenAPI document says what is answered. ``seen`` and
``warnings`` are additions that OpenAI's clients pass over, and ours read.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from internvl_modal.client.streams import AsyncStream
from internvl_modal.flows.relay import Relayed
from internvl_modal.gateway.event_stream import event
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.schema.results import Description, Seen, Usage


# Extra fields are allowed: OpenAI's own answers gain some now and then, and clients are told so.
class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Tokens(_Answer):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Said(_Answer):
    """The text of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | None = None
    refusal: None = None


class Choice(_Answer):
    """One answer."""

    index: int
    message: Said
    logprobs: object = None
    finish_reason: str


class Completion(_Answer):
    """What ``POST /v1/chat/completions`` answers without ``stream``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Tokens
    seen: Seen
    warnings: tuple[str, ...]


class ModelCard(_Answer):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "internvl-modal"


class ModelList(_Answer):
    """What ``GET /v1/models`` answers."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def completion(request: Request, answers: Sequence[Relayed]) -> Completion:
    """One document for one or several answers to a question.

    The prompt's tokens count once, as OpenAI counts them, although each answer was asked for by
    itself.
    """
    found = [answer.description for answer in answers]
    usage = Usage(
        prompt_tokens=found[0].usage.prompt_tokens,
        completion_tokens=sum(one.usage.completion_tokens for one in found),
    )
    return Completion(
        id=f"chatcmpl-{request.state.request_id}",
        created=int(time.time()),
        model=found[0].model,
        choices=[
            Choice(
                index=index,
                message=_said(answer.description),
                logprobs=answer.logprobs,
                finish_reason=answer.description.finish_reason,
            )
            for index, answer in enumerate(answers)
        ],
        usage=_tokens(usage),
        seen="confirmed" if all(one.seen == "confirmed" for one in found) else "unverifiable",
        warnings=tuple(dict.fromkeys(text for one in found for text in one.warnings)),
    )


def _said(found: Description) -> Said:
    return Said(content=found.text, reasoning_content=found.reasoning or None)


def _tokens(usage: Usage) -> Tokens:
    return Tokens(**usage.model_dump(), total_tokens=usage.total_tokens)


class Events:
    """One streamed answer as server-sent events."""

    def __init__(self, request: Request, metrics: Metrics, model: str, *, usage: bool) -> None:
        self._request, self._metrics, self._tell_usage = request, metrics, usage
        self._head = {
            "id": f"chatcmpl-{request.state.request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    async def of_stream(
        self, first: str, pieces: AsyncGenerator[str, None], answer: AsyncStream
    ) -> AsyncGenerator[bytes, None]:
        """``first``, the other pieces and the end, ``[DONE]`` after it."""
        async with aclosing(pieces):
            delta = {"role": "assistant", "content": first}
            yield self._chunk(delta | _thoughts(answer.thoughts()), answer.logprobs())
            async for piece in pieces:
                delta = {"content": piece} | _thoughts(answer.thoughts())
                yield self._chunk(delta, answer.logprobs())
            for told in self._end(answer):
                yield told

    async def of_answers(self, answers: Sequence[Relayed]) -> AsyncGenerator[bytes, None]:
        """Each answer in one piece."""
        for index, answer in enumerate(answers):
            found = answer.description
            delta = {"role": "assistant", "content": found.text} | _thoughts(found.reasoning)
            yield self._chunk(delta, answer.logprobs, None, index)
        whole = completion(self._request, answers)
        for index, answer in enumerate(answers):
            yield self._chunk({}, None, answer.description, index)
        for told in self._last(whole.usage):
            yield told

    def _end(self, answer: AsyncStream) -> list[bytes]:
        found = answer.description
        self._metrics.tokens.inc(found.usage.completion_tokens)
        last = self._chunk(_thoughts(answer.thoughts()), answer.logprobs(), found)
        return [last, *self._last(_tokens(found.usage))]

    def _last(self, usage: Tokens) -> list[bytes]:
        told = event({**self._head, "choices": [], "usage": usage.model_dump()})
        return [*([told] if self._tell_usage else []), b"data: [DONE]\n\n"]

    def _chunk(
        self,
        delta: dict[str, str],
        logprobs: object,
        ended: Description | None = None,
        index: int = 0,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        document: dict[str, object] = {**self._head, "choices": [choice]}
        if self._tell_usage:
            # As OpenAI has it: every chunk has the field once usage is asked for, and the last one
            # its value.
            document["usage"] = None
        if ended is not None:
            choice["finish_reason"] = ended.finish_reason
            document |= {"seen": ended.seen, "warnings": ended.warnings}
        return event(document)


def _thoughts(text: str) -> dict[str, str]:
    """The field for what a model thinks, as LMDeploy, SGLang and DeepSeek name it."""
    return {"reasoning_content": text} if text else {}
