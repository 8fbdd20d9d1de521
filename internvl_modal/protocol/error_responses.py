"""Answers that are not what was asked for, read into the error they mean.

Known shapes: LMDeploy's three, llama.cpp's and OpenAI's ``{"error": {...}}``, vLLM-like
``{"object": "error"}``, FastAPI's ``{"detail": ...}``, and the HTML or plain text of proxies.
"""

from __future__ import annotations

import email.utils
import re
import time

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
from internvl_modal.protocol.http import HttpResponse, Json, json_of, number

_CONTEXT = re.compile(
    r"context (?:length|size|window)|exceed_context_size|maximum context|too many tokens", re.I
)
_AVAILABLE = re.compile(r"(?:context (?:length|size|window)\D{0,20}|n_ctx\D{0,5})(\d+)", re.I)
_NEEDED = re.compile(r"(?:requested|request|prompt)\D{0,30}?(\d+)\s*tokens", re.I)


def error_from_response(response: HttpResponse) -> ServerError:
    """The error that a status other than 200 means, with the server's own words in it."""
    document = json_of(response.body)
    said = _message(document) or _plain(response)
    kind, hint = _kind(response.status, said)
    if _type(document) == ImageNotSeenError.__name__:  # our gateway's, which has checked
        kind, hint = ImageNotSeenError, "see the gateway's log"
    error = kind(
        f"the server answered {response.status}: {said}",
        hint=hint,
        status=response.status,
        body=response.text,
        request_id=response.request_id,
        retry_after=retry_after(response.headers.get("retry-after")),
    )
    if isinstance(error, ContextLengthError):
        error.needed, error.available = _context_sizes(document, said)
    return error


_KINDS: dict[int, tuple[type[ServerError], str]] = {
    401: (AuthenticationError, "set INTERNVL_MODAL_API_KEY or pass api_key="),
    403: (AuthenticationError, "this key may not use that server or model"),
    404: (RequestRejectedError, "check the base URL (it ends in /v1) and the model's name"),
    413: (RequestRejectedError, "send fewer or smaller pictures"),
    429: (RateLimitedError, "send fewer requests at once"),
    **dict.fromkeys(
        (408, 502, 503, 504), (ServerUnavailableError, "it may still be starting; try again")
    ),
}


def _kind(status: int, said: str) -> tuple[type[ServerError], str]:
    if status in _KINDS:
        return _KINDS[status]
    if _CONTEXT.search(said):
        hint = "use fewer pictures, a lower detail, or a server with a larger context"
        return ContextLengthError, hint
    if status >= 500:
        return EngineError, "see the server's log"
    return RequestRejectedError, "the request as it is will not be accepted"


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3), None if unreadable."""
    if not value:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", value):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def parse_object(response: HttpResponse) -> Json:
    """The JSON object in the body; anything else raises ServerError."""
    document = json_of(response.body)
    if not isinstance(document, dict):
        raise unreadable(response, "no JSON object")
    if document.get("object") == "error" or isinstance(document.get("error"), dict | str):
        raise ServerError(
            f"the server answered {response.status} with an error: {_message(document)}",
            status=response.status,
            body=response.text,
            request_id=response.request_id,
        )
    return document


def unreadable(response: HttpResponse, what: str) -> ServerError:
    """The error for a body that is not a completion."""
    return ServerError(
        f"the server answered {response.status} with {what}: {_plain(response)}",
        hint="check that the base URL is that of an OpenAI-compatible server",
        status=response.status,
        body=response.text,
        request_id=response.request_id,
    )


def _message(document: object) -> str:
    """The human words in an error document, wherever the server put them."""
    for _ in range(4):
        if isinstance(document, str):
            return document.strip()[:500]
        if isinstance(document, list):
            return "; ".join(filter(None, (_validation(item) for item in document)))[:500]
        if not isinstance(document, dict):
            return ""
        document = next(
            (document[key] for key in ("error", "detail", "message", "msg") if document.get(key)),
            None,
        )
    return ""


def _type(document: object) -> object:
    error = document.get("error") if isinstance(document, dict) else None
    return error.get("type") if isinstance(error, dict) else None


def _validation(item: object) -> str:
    """One entry of a FastAPI validation error: where and what."""
    if not isinstance(item, dict):
        return ""
    where = item.get("loc")
    place = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    return f"{place}: {item.get('msg')}" if place else str(item.get("msg", ""))


def _plain(response: HttpResponse) -> str:
    """Readable words of a body that is not JSON: tags and white space folded."""
    text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<[^<>]*>", " ", response.text)
    return " ".join(text.split())[:200] or "an empty body"


def _context_sizes(document: object, said: str) -> tuple[int | None, int | None]:
    """Tokens needed and available, from llama.cpp's fields or from the words."""
    inner = document.get("error") if isinstance(document, dict) else None
    if isinstance(inner, dict) and number(inner.get("n_ctx")):
        return number(inner.get("n_prompt_tokens")) or None, number(inner.get("n_ctx"))
    needed, available = _NEEDED.search(said), _AVAILABLE.search(said)
    return needed and int(needed[1]), available and int(available[1])
