"""Requests and answers as bytes: nothing here opens a socket.

Each ``decode_*`` turns a status, headers and a body into a value or raises the error that the
answer means, also where the server says 200 and did not do what was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from internvl_modal.errors import ContextLengthError, EngineError, ServerError
from internvl_modal.protocol.answer_warnings import answer_warnings
from internvl_modal.protocol.chat_request import ChatCall
from internvl_modal.protocol.dialects.gateway import proven
from internvl_modal.protocol.error_responses import error_from_response, parse_object, unreadable
from internvl_modal.protocol.http import HttpResponse, Json, number
from internvl_modal.protocol.stop_sequences import StopCutter
from internvl_modal.protocol.verification import check_seen
from internvl_modal.schema.results import Description, Usage


def decode_completion(response: HttpResponse, call: ChatCall) -> Description:
    """The description in a chat completion; raises ServerError and its kinds."""
    if response.status != 200:
        raise error_from_response(response)
    body = parse_object(response)
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise unreadable(response, "a completion without choices")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise unreadable(response, "a completion without a message")
    answer = Answer(
        text=text_of(message.get("content")),
        finish_reason=choice.get("finish_reason"),
        usage=usage_of(body.get("usage")),
        model=body.get("model"),
        request_id=response.request_id or id_of(body),
        proof=body,
    )
    return conclude(answer, call)


@dataclass(frozen=True)
class Answer:
    """What a server said, from one body or from a stream, before it is believed."""

    text: str
    finish_reason: object
    usage: Usage | None
    model: object
    request_id: str | None
    proof: Json
    """Where our gateway says ``seen`` and ``warnings``."""


def conclude(answer: Answer, call: ChatCall) -> Description:
    """The description, once the answer has passed every check."""
    usage = answer.usage or Usage()
    if answer.finish_reason == "error":
        raise EngineError(
            f"the engine failed: {answer.text or 'no text'}",
            hint="see the server's log; the same request may work again",
            status=200,
            request_id=answer.request_id,
        )
    if not answer.text and answer.finish_reason == "length":
        raise context_full(answer, usage)
    cutter = StopCutter(call.options.stop)
    text = cutter.feed(answer.text) + cutter.finish()
    reason = "stop" if cutter.stopped else answer.finish_reason
    if reason not in ("stop", "length"):
        raise ServerError(
            f"the answer ended with finish_reason {answer.finish_reason!r}",
            hint="expected 'stop' or 'length'",
            status=200,
            request_id=answer.request_id,
        )
    seen = check_seen(call.turns, call.capabilities, answer.usage, request_id=answer.request_id)
    warnings = answer_warnings(text, reason, usage, call)
    if call.capabilities.dialect == "gateway":
        seen, told = proven(answer.proof)
        warnings = tuple(dict.fromkeys((*told, *warnings)))
    return Description(
        text=text,
        model=answer.model if isinstance(answer.model, str) and answer.model else call.model,
        finish_reason="length" if reason == "length" else "stop",
        usage=usage,
        images=tuple(image.info for image in call.images),
        seen=seen,
        request_id=answer.request_id,
        warnings=warnings,
    )


def context_full(answer: Answer, usage: Usage) -> ContextLengthError:
    """LMDeploy says 200 with no text and 'length' when the prompt does not fit."""
    error = ContextLengthError(
        "the prompt does not fit the server's context",
        hint="use fewer pictures, detail='low' or a server with a larger session length",
        status=200,
        request_id=answer.request_id,
    )
    error.needed = usage.prompt_tokens or None
    return error


def decode_models(response: HttpResponse) -> list[Json]:
    """The entries of ``/v1/models``, each with an ``id``."""
    if response.status != 200:
        raise error_from_response(response)
    data = parse_object(response).get("data")
    if not isinstance(data, list):
        raise unreadable(response, "no list of models")
    return [item for item in data if isinstance(item, dict) and isinstance(item.get("id"), str)]


def id_of(body: Json) -> str | None:
    """The answer's own id, for servers that send no header with one."""
    value = body.get("id")
    return value if isinstance(value, str) and value else None


def usage_of(value: object) -> Usage | None:
    """The token counts, or None when the server gives none."""
    if not isinstance(value, dict):
        return None
    return Usage(
        prompt_tokens=number(value.get("prompt_tokens")),
        completion_tokens=number(value.get("completion_tokens")),
    )


def text_of(content: object) -> str:
    """Text of a message, whether a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts: Sequence[object] = content if isinstance(content, list) else ()
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))
