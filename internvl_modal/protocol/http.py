"""HTTP requests and responses as values.

No library's classes: what reads and writes them is tested without a socket, and the library that
moves the bytes can be exchanged in one file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Json: TypeAlias = "dict[str, object]"


_BODY_KEPT = 2000
"""Characters of a body that go into an error: enough for its words, not for a page of HTML."""


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
    """The body as JSON, None where it is none.

    >>> json_of(b'{"a": 1}'), json_of(b"<html>")
    ({'a': 1}, None)
    """
    try:
        return json.loads(body)
    # Brackets nested ten thousand deep are the second, and can come from anywhere.
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class HttpRequest:
    """One request; ``path`` is relative to the endpoint's base URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
