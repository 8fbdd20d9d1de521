"""HTTP requests and responses as values.

No library's classes: what reads and writes them is tested without a socket, and the library that
moves the bytes can be exchanged in one file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Json: TypeAlias = "dict[str, object]"


MOST_VALUES, DEEPEST = 100_000, 100
"""Of a JSON document: the longest list of models has 50,000 values. As objects a value fills up to
a hundred times the two bytes that it may have on the wire."""
_BODY_KEPT = 2000
"""Characters of a body that go into an error: enough for its words, not for a page of HTML."""
_STRING = re.compile(r'"[^"]*"')
_STRICT, _LAX = json.JSONDecoder(), json.JSONDecoder(strict=False)
_BRACKET = re.compile(r"[\[{]|[\]}]")


_REQUEST_IDS = ("x-request-id", "modal-function-call-id", "request-id")
"""In the order in which they are believed: OpenAI's and vLLM's, Modal's, Anthropic's."""


@dataclass(frozen=True)
class HttpResponse:
    """A whole response; ``headers`` has lower-case names."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def request_id(self) -> str | None:
        """The server's own name for the request, to quote to whoever runs it."""
        return next((self.headers[name] for name in _REQUEST_IDS if self.headers.get(name)), None)

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        # A character has at most four bytes; megabytes need not be decoded for two thousand of
        # them.
        return self.body[: _BODY_KEPT * 4].decode("utf-8", "replace")[:_BODY_KEPT]


def number(value: object) -> int:
    """``value`` if it is a count, else 0."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_count and isinstance(value, int) else 0


def json_of(body: bytes) -> object:
    """The body as JSON, None where it is none, or more than ``read_json`` reads.

    >>> json_of(b'{"a": 1}'), json_of(b"<html>")
    ({'a': 1}, None)
    """
    try:
        return read_json(body.decode("utf-8-sig", "surrogatepass"))
    except ValueError:
        return None


def read_json(text: str, *, strict: bool = True) -> object:
    """``text`` as JSON, ``strict`` as for ``json.loads``; raises ValueError.

    So too, before any of it is built, for more than MOST_VALUES or what is nested deeper than
    DEEPEST.
    """
    if not _few(text):
        outside = _outside_strings(text)
        if _values(outside) > MOST_VALUES or _depth(outside) > DEEPEST:
            raise ValueError(f"more than {MOST_VALUES:,} values, or nested too deeply")
    try:
        return (_STRICT if strict else _LAX).decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _few(text: str) -> bool:
    return _values(text) <= MOST_VALUES and text.count("[") + text.count("{") <= DEEPEST


def _values(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _outside_strings(text: str) -> str:
    """``text`` without its strings; raises ValueError where they are too many to be looked at."""
    plain = text.replace("\\\\", "").replace('\\"', "")
    if plain.count('"') > 4 * MOST_VALUES:  # a name and a string for each value
        raise ValueError(f"more than {MOST_VALUES:,} values")
    return _STRING.sub("", plain)


def _depth(text: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
        if depth < 0:  # no parser goes on from here
            break
    return deepest


@dataclass(frozen=True)
class HttpRequest:
    """One request; ``path`` is relative to the endpoint's base URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
