"""Answers that are not what was asked for, read into the error they mean.

Known shapes: LMDeploy's three, llama.cpp's and OpenAI's ``{"error": {...}}``, vLLM-like
``{"object": "error"}``, FastAPI's ``{"detail": ...}``, Google's list of one, OpenRouter's errors
inside a 200, and the HTML or plain text of proxies.

The kind of an error decides what the retry rule does with it, and is chosen by status first and
words second. The server's own words are kept in the message: they are what its operator needs.
"""

from __future__ import annotations

import re
from typing import Any

from internvl_modal.errors import (
    AuthenticationError,
    ContextLengthError,
    EngineError,
    ImageNotSeenError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.protocol.context_length import context_sizes, is_context_length
from internvl_modal.protocol.error_documents import (
    error_code,
    error_type,
    error_words,
    is_error,
    retry_after,
)
from internvl_modal.protocol.http import HttpResponse, Json, json_of

WRONG_SERVER = "check that the base URL is that of an OpenAI-compatible server"

_FLAGGED = re.compile(r"flagged|moderation|guardrail|content.?(?:policy|filter)|safety", re.I)
_UNPAID = re.compile(r"insufficient_quota|billing|credit", re.I)


def error_from_response(response: HttpResponse) -> ServerError:
    """The error that a status other than 200 means, with the server's own words in it."""
    document = json_of(response.body)
    return _error(document, response.status, response, error_words(document) or plain(response))


def error_within(document: object, response: HttpResponse, text: str = "") -> ServerError | None:
    """The error that stands inside a 200, in a body or an event of a stream; None if none does.

    Its own code is treated like a status. ``text`` is what had been written before it.
    """
    if not is_error(document):
        return None
    said = error_words(document) or "an error without words"
    return _error(document, error_code(document, said) or 200, response, said, text=text)


def _error(
    document: object, status: int, response: HttpResponse, said: str, **more: Any
) -> ServerError:
    kind, hint = _kind(status, said, document)
    fields: dict[str, Any] = {}
    if kind is ContextLengthError:
        sizes = context_sizes(document, said)
        fields = {"needed": sizes.needed, "available": sizes.available}
    # "402 within a 200" tells the operator of a router where to look.
    inside = "" if status == response.status else f" within a {response.status}"
    return kind(
        f"the server answered {status}{inside}: {said}",
        hint=hint,
        status=status,
        body=response.text,
        request_id=response.request_id,
        retry_after=retry_after(document, response.headers),
        **fields,
        **more,
    )


_KINDS: dict[int, tuple[type[ServerError], str]] = {
    200: (EngineError, "see the server's log; the same request may work again"),
    # Asking again with the same key is of no use, and is not done.
    401: (AuthenticationError, "set INTERNVL_MODAL_API_KEY or pass api_key="),
    402: (RequestRejectedError, "the account behind the key has no credit left"),
    403: (AuthenticationError, "this key may not use that server or model"),
    404: (RequestRejectedError, "check the base URL (it ends in /v1) and the model's name"),
    409: (ServerUnavailableError, "it conflicts with what the server does now; try again"),
    # nginx's limit is 1 MB unless it is changed, and a picture is sent as base64 inside the body.
    413: (RequestRejectedError, "send fewer or smaller pictures"),
    429: (RateLimitedError, "send fewer requests at once"),
    # 5xx, and yet final: the server will not learn it.
    **dict.fromkeys((501, 505), (RequestRejectedError, "the server cannot do that")),
    **dict.fromkeys(
        (408, 502, 503, 504, 529), (ServerUnavailableError, "it may still be starting; try again")
    ),
}
_ENGINE = EngineError, "see the server's log"
_REQUEST = RequestRejectedError, "the request as it is will not be accepted"
_MAY_BE_CONTEXT = frozenset({200, 400, 413, 422, 500})
"""A 404 that mentions a context means a model's name such as "...-context-128k"."""


def _kind(status: int, said: str, document: object) -> tuple[type[ServerError], str]:
    """Which error a status means, with a hint; the words decide where one status means several."""
    told = error_type(document)
    if ImageNotSeenError.__name__ in told:  # our gateway's, which has checked
        return ImageNotSeenError, "see the gateway's log"
    if status in _MAY_BE_CONTEXT and is_context_length(f"{told} {said}"):
        hint = "use fewer pictures, a lower detail, or a server with a larger context"
        return ContextLengthError, hint
    if status == 403 and _FLAGGED.search(said):
        return RequestRejectedError, "the server's moderation refuses this picture or prompt"
    # OpenAI says 429 where the money is spent: waiting does not help.
    if status == 429 and _UNPAID.search(told):
        status = 402
    return _KINDS.get(status, _ENGINE if status >= 500 else _REQUEST)


def parse_object(response: HttpResponse) -> Json:
    """The JSON object in the body of a 200; anything else raises ServerError."""
    document = json_of(response.body)
    if (error := error_within(document, response)) is not None:
        raise error
    if not isinstance(document, dict):
        raise unreadable(response, "no JSON object")
    return document


def unreadable(response: HttpResponse, what: str) -> ServerError:
    """The error for a body that is not a completion.

    A 200 that is no completion mostly means that the URL leads somewhere else.
    """
    return ServerError(
        f"the server answered {response.status} with {what}: {plain(response)}",
        hint=WRONG_SERVER,
        status=response.status,
        body=response.text,
        request_id=response.request_id,
    )


def plain(response: HttpResponse) -> str:
    """Readable words of a body that is not JSON: tags and white space folded.

    >>> plain(HttpResponse(502, body=b"<h1>Bad  Gateway</h1>"))
    'Bad Gateway'
    """
    text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<[^<>]*>", " ", response.text)
    return " ".join(text.split())[:200] or "an empty body"
