"""Requests and answers as bytes: nothing here opens a socket.

Each ``decode_*`` turns a status, headers and a body into a value or raises the error that the
answer means, also where the server says 200 and did not do what was asked.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pybase64

from internvl_modal.backends.base import Capabilities, Endpoint
from internvl_modal.errors import ContextLengthError, EngineError, ServerError
from internvl_modal.prompts import Json, Turn, render
from internvl_modal.replies import (
    HttpResponse,
    error_from_response,
    number,
    parse_object,
    unreadable,
)
from internvl_modal.schema import DescribeOptions, Description, Usage
from internvl_modal.stops import StopCutter
from internvl_modal.truth import answer_warnings, check_seen, proven

if TYPE_CHECKING:
    from internvl_modal.images import PreparedImage

ZERO_SEED = 2**32 - 1
"""Sent to LMDeploy for ``seed=0``, which it takes for no seed."""


@dataclass(frozen=True)
class HttpRequest:
    """One request; ``path`` is relative to the endpoint's base URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class ChatCall:
    """What is asked, kept to check the answer against it."""

    endpoint: Endpoint
    capabilities: Capabilities
    model: str
    turns: tuple[Turn, ...]
    options: DescribeOptions

    @property
    def images(self) -> tuple[PreparedImage, ...]:
        """Every picture of every turn, in order."""
        return tuple(image for turn in self.turns for image in turn.images)

    def request(self, *, stream: bool = False, schema: Json | None = None) -> HttpRequest:
        """The chat completion request; ``schema`` asks for JSON where the server can."""
        payloads: dict[str, bytes] = {}
        mark = secrets.token_hex(16)

        def attach(image: PreparedImage) -> str:
            placeholder = f"{mark}{len(payloads)}."
            payloads[placeholder] = image.payload
            return f"data:{image.info.sent_format};base64,{placeholder}"

        document: Json = {
            "model": self.model,
            "messages": render(self.turns, self.capabilities.dialect, attach),
            **sampling(self.options, self.capabilities),
        }
        if stream:
            document |= {"stream": True, "stream_options": {"include_usage": True}}
        if schema is not None and self.capabilities.json_schema:
            form = {"name": "answer", "schema": schema}
            document["response_format"] = {"type": "json_schema", "json_schema": form}
        headers = {**self.endpoint.headers, "content-type": "application/json"}
        return HttpRequest("POST", "chat/completions", headers, encode(document, payloads))


def encode(document: Json, payloads: Mapping[str, bytes]) -> bytes:
    """JSON with each placeholder replaced by its payload in base64.

    The payloads never pass through the JSON encoder, which would scan and copy every byte.
    """
    rest = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    pieces: list[bytes] = []
    for placeholder, payload in payloads.items():
        before, _, rest = rest.partition(placeholder.encode())
        pieces += (before, pybase64.b64encode(payload))
    return b"".join([*pieces, rest])


def sampling(options: DescribeOptions, capabilities: Capabilities) -> Json:
    """The sampling parameters, so that 0 means what the user means by it."""
    lmdeploy = capabilities.dialect == "lmdeploy"
    top_k, seed = options.top_k, options.seed
    if options.temperature == 0 and capabilities.dialect in ("lmdeploy", "llamacpp"):
        top_k = 1
    if seed == 0 and lmdeploy:
        seed = ZERO_SEED
    penalty = "repeat_penalty" if capabilities.dialect == "llamacpp" else "repetition_penalty"
    given: Json = {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": top_k,
        "seed": seed,
        "stop": list(options.stop) or None,
        penalty: options.repetition_penalty,
    }
    return {name: value for name, value in given.items() if value is not None}


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
