"""A chat completion's body read into a description, or into the error that it means.

Also where the server says 200 and did not do what was asked.

Every answer takes the same road: ``read_completion`` (or a stream) says what the server wrote, and
``conclude`` decides whether it is believed. Engines say 200 for a failure, for a full context and
for a picture they could not load, so a status proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from internvl_modal.errors import ContextLengthError, EmptyAnswerError, EngineError, ServerError
from internvl_modal.protocol.answer_warnings import answer_warnings, cut_off
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.dialects.registry import dialect_of
from internvl_modal.protocol.error_responses import (
    error_from_response,
    error_within,
    parse_object,
    unreadable,
)
from internvl_modal.protocol.finish_reasons import finish_of
from internvl_modal.protocol.http import HttpResponse, Json, json_of, number
from internvl_modal.protocol.reasoning import split_reasoning
from internvl_modal.protocol.stop_sequences import StopCutter
from internvl_modal.schema.results import Description, Usage


def decode_completion(response: HttpResponse, call: ChatCall) -> Description:
    """The description in a chat completion; raises ServerError and its kinds."""
    if response.status != 200:
        raise error_from_response(response)
    return conclude(read_completion(response), call)


@dataclass(frozen=True)
class Answer:
    """What a server said, from one body or from a stream, before it is believed.

    Fields are ``object`` where servers send what they like: they are looked at in ``conclude``.
    """

    text: str
    finish_reason: object = None
    usage: Usage | None = None
    model: object = None
    request_id: str | None = None
    reasoning: str = ""
    """From a field of its own; a thought inside ``text`` is still there."""
    refusal: str = ""
    body: Json | None = None
    """Where our gateway says ``seen`` and ``warnings``."""


def read_completion(response: HttpResponse) -> Answer:
    """What a whole completion says; raises the error that stands in its place."""
    body = parse_object(response)
    choice = first_choice(body)
    if choice is None:
        raise unreadable(response, "a completion without choices")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise unreadable(response, "a completion without a message")
    return Answer(
        text=text_of(message.get("content")),
        finish_reason=choice.get("finish_reason"),
        usage=usage_of(body.get("usage")),
        model=body.get("model"),
        request_id=response.request_id or id_of(body),
        reasoning=reasoning_of(message),
        refusal=text_of(message.get("refusal")),
        body=body,
    )


def conclude(answer: Answer, call: ChatCall) -> Description:
    """The description, once the answer has passed every check.

    Raises EngineError, EmptyAnswerError, ContextLengthError or ImageNotSeenError, each with the
    text that there was, since tokens have been paid for it.
    """
    text, thought = split_reasoning(answer.text)
    if thought:
        answer = replace(answer, reasoning="\n".join(filter(None, (answer.reasoning, thought))))
    # LMDeploy 0.7.3: HTTP 200, "internal error happened", and this reason.
    if answer.finish_reason == "error":
        raise EngineError(
            f"the engine failed: {answer.text or 'no text'}",
            hint="see the server's log; the same request may work again",
            status=200,
            request_id=answer.request_id,
            text=text,
        )
    # After the thought is cut off: a stop string inside a thought must not end the answer.
    cutter = StopCutter(call.options.stop)
    text = cutter.feed(text) + cutter.finish()
    reason = "stop" if cutter.stopped else finish_of(answer.finish_reason)
    if _BLANK.fullmatch(text):
        empty = _empty(answer, call, stopped=cutter.stopped)
        # Callers of the gateway who send no picture judge an empty answer themselves.
        if call.relayed is None or call.images or not isinstance(empty, EmptyAnswerError):
            raise empty
    # Verified last, so that an error of the engine is not reported as a picture that was not seen.
    usage = answer.usage or Usage()
    sight = dialect_of(call.capabilities).sight(
        call, answer.usage, answer.body or {}, request_id=answer.request_id, text=text
    )
    unknown = () if reason else (f"the answer ended with finish_reason {answer.finish_reason!r}",)
    warnings = (*sight.warnings, *unknown, *answer_warnings(text, reason, usage, call))
    return Description(
        text=text,
        model=answer.model if isinstance(answer.model, str) and answer.model else call.model,
        finish_reason=reason or "stop",
        usage=usage,
        images=tuple(image.info for image in call.images),
        seen=sight.seen,
        request_id=answer.request_id,
        reasoning=answer.reasoning,
        # Several pictures bring the same warning several times.
        warnings=tuple(dict.fromkeys(warnings)),
    )


_BLANK = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]*")
"""What nobody can read, white space and characters without a width."""


def _empty(answer: Answer, call: ChatCall, *, stopped: bool) -> ServerError:
    """Why there is no description in an answer without a text.

    ``final`` where the same request would end the same way: then it is not retried.
    """
    usage = answer.usage or Usage()
    length = finish_of(answer.finish_reason) == "length"
    # No token at all, and yet cut: the prompt itself has filled the context. With a reasoning model
    # zero may be counted for the answer alone, hence the last condition.
    if length and answer.usage is not None and not usage.completion_tokens and not answer.reasoning:
        return _context_full(answer, usage)
    why, hint = "its text is empty", "ask in other words, or another model"
    final = False
    if stopped:
        why, hint, final = "a stop string ends it at once", "leave that string out of stop=", True
    elif length:
        spent = "its reasoning spent max_tokens" if answer.reasoning else "no text was written"
        why, hint, final = f"{spent}; {cut_off(usage, call)}", "raise max_tokens", True
        if 0 < usage.completion_tokens < (call.options.max_tokens or 0):
            hint = "use fewer pictures, a lower detail, or a server with a larger context"
    elif answer.refusal:
        why, hint = f"the model refuses: {answer.refusal[:300]}", "ask in other words"
    elif answer.reasoning:
        why = "it is only reasoning"
    elif finish_of(answer.finish_reason) is None:
        why = f"its finish_reason is {answer.finish_reason!r}"
    return EmptyAnswerError(
        f"the answer holds no description: {why}",
        hint=hint,
        status=200,
        request_id=answer.request_id,
        reasoning=answer.reasoning,
        retryable=not final,
    )


def _context_full(answer: Answer, usage: Usage) -> ContextLengthError:
    """LMDeploy says 200 with no text and 'length' when the prompt does not fit."""
    return ContextLengthError(
        "the prompt does not fit the server's context",
        hint="use fewer pictures, detail='low' or a server with a larger session length",
        needed=usage.prompt_tokens or None,
        status=200,
        request_id=answer.request_id,
    )


def decode_models(response: HttpResponse) -> list[Json]:
    """The entries of ``/v1/models``, each with an ``id``; a bare list (Together) will do.

    Raises ServerUnavailableError or another ServerError for what stands in the list's place.
    """
    if response.status != 200:
        raise error_from_response(response)
    document = json_of(response.body)
    if (error := error_within(document, response)) is not None:
        raise error
    data = document.get("data", ...) if isinstance(document, dict) else document
    # Ollama writes ``"data": null`` where others write an empty list.
    if data is None and document is not None:  # Ollama without a model
        return []
    if not isinstance(data, list):
        raise unreadable(response, "no list of models")
    return [item for item in data if isinstance(item, dict) and isinstance(item.get("id"), str)]


def first_choice(body: Json) -> Json | None:
    """The one answer that was asked for.

    Never more than one: ``n`` is not among our options.
    """
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else None


def id_of(body: Json) -> str | None:
    """The answer's own id, for servers that send no header with one."""
    value = body.get("id")
    return value if isinstance(value, str) and value else None


def usage_of(value: object) -> Usage | None:
    """The token counts, or None when the server gives none.

    Some servers send ``{}`` or strings there: counts of 0 then stand for "not told".
    """
    if not isinstance(value, dict):
        return None
    return Usage(
        prompt_tokens=number(value.get("prompt_tokens")),
        completion_tokens=number(value.get("completion_tokens")),
    )


def text_of(content: object) -> str:
    """Text of a message, whether a string or a list of parts; thoughts among them left out.

    >>> text_of([{"type": "thinking", "text": "hm"}, {"type": "text", "text": "A cat."}])
    'A cat.'
    """
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in _parts(content) if part.get("type") not in _THOUGHTS)
    return "".join(text for text in texts if isinstance(text, str))


def reasoning_of(message: Json) -> str:
    """What a thinking model wrote before its answer, where it has a field of its own.

    vLLM and OpenRouter call it ``reasoning``, DeepSeek, SGLang, LMDeploy and llama.cpp
    ``reasoning_content``; Mistral makes it a part of the content, and OpenRouter lists details.
    """
    for name in ("reasoning_content", "reasoning", "thinking"):
        value = message.get(name)
        if isinstance(value, str) and value:
            return value
    parts = _parts(message.get("content"))
    thoughts = [part for part in parts if part.get("type") in _THOUGHTS]
    thoughts += _parts(message.get("reasoning_details"))
    names = ("thinking", "text", "summary")
    return "".join(next(filter(None, (text_of(p.get(n)) for n in names)), "") for p in thoughts)


_THOUGHTS = ("thinking", "reasoning")


def _parts(content: object) -> Iterable[Json]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
