"""Where servers put the code, the type and the words of an error in a JSON document.

Servers and the routers before them nest errors in each other: an OpenRouter error holds its
provider's, FastAPI wraps ours in ``detail``. So documents are searched and not looked up, the inner
levels first.

>>> error_words({"error": {"message": "no such model"}})
'no such model'
>>> error_code({"error": {"type": "overloaded_error"}}, "")
503
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator, Mapping

from internvl_modal.protocol.http import Json

_TYPES: tuple[tuple[str, int], ...] = (
    (r"overloaded|unavailable|loading model|(?:still|model is) (?:loading|starting)", 503),
    (r"rate.?limit|too.?many.?requests|resource_exhausted|insufficient_quota", 429),
    (r"authentication|unauthenticated|unauthorized|invalid.?api.?key|no auth", 401),
    (r"insufficient.?(?:credits?|funds|balance)|payment.?required", 402),
    (r"permission.?denied|forbidden|flagged", 403),
    (r"not.?found", 404),
    (r"deadline.?exceeded|timed?.?out|gateway.?timeout", 504),
    (r"invalid.?request|bad.?request|invalid.?argument|validation", 400),
    (r"server.?error|internal|out of memory|cuda", 500),
)
"""Words of an error that has no code, and the status that they mean.

The first that matches wins: the particular stands above the general.
"""


def is_error(document: object) -> bool:
    """Whether a document, or an event of a stream, says that something failed."""
    if isinstance(document, list):  # Google's
        return len(document) == 1 and _has_error(document[0])
    if not isinstance(document, dict):
        return False
    if document.get("error") or "error" in (document.get("object"), document.get("type")):
        return True
    # A completion can hold an error beside its choices (OpenRouter) or in the first of them;
    # without any choice it is unreadable, which ``completion`` says better.
    if "choices" in document:
        choices = document["choices"]
        return isinstance(choices, list) and bool(choices) and _has_error(choices[0])
    if document.get("detail") or document.get("errors"):
        return True
    failed = _status(document.get("code")) or _status(document.get("status"))
    said = isinstance(document.get("message") or document.get("msg"), str)
    return said and (failed is not None or not document.get("data"))


def _has_error(document: object) -> bool:
    return isinstance(document, dict) and bool(document.get("error"))


def error_code(document: object, said: str) -> int | None:
    """The HTTP status that an error document gives as a code, or means by its type or words."""
    levels = list(_levels(document))
    for level in levels:
        for name in ("code", "status", "status_code", "http_status", "statusCode"):
            if (code := _status(level.get(name))) is not None:
                return code
    told = " ".join(
        str(level[name])
        for level in levels
        for name in ("type", "code", "status", "error_type")
        if isinstance(level.get(name), str)
    )
    # Types before the human words: "internal" in a sentence may be about anything.
    for words in (told, said):
        for pattern, code in _TYPES:
            if re.search(pattern, words, re.I):
                return code
    return None


def error_type(document: object) -> str:
    """The types and codes that are words, all of them."""
    names = [
        str(level[name])
        for level in _levels(document)
        for name in ("type", "code", "error_type")
        if isinstance(level.get(name), str)
    ]
    return " ".join(dict.fromkeys(names))


def error_words(document: object) -> str:
    """The human words in an error document, wherever the server put them."""
    if isinstance(document, dict) and isinstance(choices := document.get("choices"), list):
        first = choices[0] if choices else None
        if not document.get("error") and isinstance(first, dict) and first.get("error"):
            document = first
    # As deep as nesting has been seen; a bound, since a document may be anybody's.
    for _ in range(5):
        if isinstance(document, str):
            return document.strip()[:500]
        if isinstance(document, list):
            if len(document) == 1 and isinstance(document[0], dict) and document[0].get("error"):
                document = document[0]
                continue
            return "; ".join(filter(None, (_validation(item) for item in document)))[:500]
        if not isinstance(document, dict):
            return ""
        values = (document.get(name) for name in ("error", "errors", "detail", "message", "msg"))
        found = next((v for v in values if v and isinstance(v, str | dict | list)), None)
        if isinstance(found, str) and (raw := _of_provider(document)):
            return f"{found.strip()}: {raw}"[:1000]
        document = found
    return ""


def _of_provider(document: Json) -> str:
    """What the server behind OpenRouter said, whose own words are "Provider returned error"."""
    more = document.get("metadata")
    raw = more.get("raw") if isinstance(more, dict) else None
    return raw.strip() if isinstance(raw, str) else error_words(raw)


def retry_after(document: object, headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before asking again, from the header or from the error itself.

    Google's and OpenRouter's come inside the document. What asks for the past is 0.
    """
    told = seconds(headers.get("retry-after"))
    if told is not None:
        return told
    for level in _levels(document):
        for name in ("retry_after", "retry_after_seconds", "retryAfter"):
            value = level.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return max(0.0, float(value))
            if isinstance(value, str) and (told := seconds(value)) is not None:
                return told
        given = level.get("headers")
        for name, value in given.items() if isinstance(given, dict) else ():
            if str(name).lower() == "retry-after" and (told := seconds(str(value))) is not None:
                return told
    return None


def seconds(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3), None if unreadable.

    >>> seconds("3"), seconds("soon")
    (3.0, None)
    """
    if not value:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", value):
        return float(value)
    try:
        # A date is by the server's clock, and that may be wrong: never less than 0.
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _levels(document: object, depth: int = 4) -> Iterator[Json]:
    """The objects of an error document, the inner ones first: they know more."""
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict) or depth == 0:
        return
    for name in ("error", "errors", "detail", "metadata", "choices"):
        yield from _levels(document.get(name), depth - 1)
    yield document


def _status(value: object) -> int | None:
    """A number from 400 to 599, also as text; every other code is a server's own."""
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value.strip()):
        value = int(value)
    is_code = isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600
    return value if is_code and isinstance(value, int) else None


def _validation(item: object) -> str:
    """One entry of a FastAPI validation error: where and what."""
    if not isinstance(item, dict):
        return ""
    where = item.get("loc")
    place = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    said = str(item.get("msg") or item.get("message") or "")
    return f"{place}: {said}" if place else said
