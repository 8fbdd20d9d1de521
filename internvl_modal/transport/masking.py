"""Keys out of what servers say, before anybody reads, logs, pickles or reports it.

Servers and proxies repeat requests in their errors, headers included, and an error travels far:
into logs, into a batch's lines, into services that keep tracebacks with the values of variables.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from internvl_modal._utils.causes import causes
from internvl_modal.errors import InternVLError

__all__ = ["conceal", "forget", "masked", "secrets_of"]

GONE = "***"
_LEAST = 4
"""Letters; what is shorter is a part of many words."""
_LONG = 16
"""Letters of a secret of which half tells too much: limits cut texts anywhere."""
_OPEN = frozenset(
    ("accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent")
)
"""Headers that hold no secret."""
_SCHEMES = frozenset(("basic", "bearer"))


def secrets_of(base_url: str, headers: Mapping[str, str]) -> list[str]:
    """What must not be told of a request, longest first: a part masked alone leaves the rest.

    Values of headers word by word, user, password and query of the URL, each as JSON and URLs
    write them as well.
    """
    values = [value for name, value in headers.items() if name.lower() not in _OPEN]
    words = [word for value in values for word in value.split() if word.lower() not in _SCHEMES]
    try:
        parts = urlsplit(base_url)
    except ValueError:
        parts = urlsplit("")
    words += [unquote(word) for word in (parts.username, parts.password) if word]
    words += [value for _, value in parse_qsl(parts.query)]
    spelt = {*words, *(quote(word, safe="") for word in words)}
    spelt |= {json.dumps(word)[1:-1] for word in words}
    return sorted((word for word in spelt if len(word) >= _LEAST), key=len, reverse=True)


def masked(text: str, secrets: Iterable[str]) -> str:
    """``text`` with each secret masked, also where a limit has cut it.

    >>> masked("wrong key sk-0123456789abcd, or sk-0123456", ["sk-0123456789abcd"])
    'wrong key ***, or ***'
    """
    for secret in secrets:
        least = len(secret) // 2 if len(secret) >= _LONG else len(secret)
        start = text.find(secret[:least])
        while start >= 0:
            end = start + least
            while end < len(text) and text[end : end + 1] == secret[end - start : end - start + 1]:
                end += 1
            text = text[:start] + GONE + text[end:]
            start = text.find(secret[:least], start + len(GONE))
    return text


def conceal(error: InternVLError, secrets: Iterable[str]) -> None:
    """Mask all texts of ``error``, and forget the variables of the calls that it came through."""
    secrets = list(secrets)
    for name, value in vars(error).items():
        if isinstance(value, str):
            setattr(error, name, masked(value, secrets))
    error.args = tuple(masked(arg, secrets) if isinstance(arg, str) else arg for arg in error.args)
    forget(error)


def forget(error: BaseException) -> None:
    """Clear the variables of calls that have ended: whoever keeps an error keeps no keys.

    Those of all that led to it, since a library's write may have failed three errors further down.
    What it does not name as its cause is let go.
    """
    if error.__suppress_context__:
        error.__context__ = None
    for each in causes(error):
        traceback.clear_frames(each.__traceback__)
    if error.__context__ is not None:
        traceback.clear_frames(error.__context__.__traceback__)
