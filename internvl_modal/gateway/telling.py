"""What a model's server says, as callers may read it.

Servers repeat requests in their errors, with headers, and proxies tell of addresses inside. A
caller of the gateway may have neither: the key behind it is not theirs.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import SecretStr

from internvl_modal.client.aio import AsyncClient

GONE = "***"
_NAMES = (
    *("authorization", "proxy-authorization", "modal-key", "modal-secret", "x-api-key", "api-key"),
    *("cookie", "set-cookie", "host", "user-agent", "accept", "accept-encoding", "connection"),
    *("content-type", "content-length", "transfer-encoding", "x-forwarded-for", "forwarded", "via"),
)
_HEADER = re.compile(
    rf"""\b({"|".join(_NAMES)})\b["']?\s*[:=]\s*(?:b?"[^"]*"|b?'[^']*'|[^,;}}\n]*)""", re.I
)
_KEY = re.compile(r"\b(?:bearer|basic)\s+[\w.~+/=-]+|\b(?:sk|hf|ak|as|key)[-_][\w-]{8,}", re.I)
_ADDRESS = re.compile(
    r"\b(?:https?|wss?|file)://[^\s'\"<>)]+"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
    r"|\[[0-9a-f:.]*:[0-9a-f:.]*\](?::\d+)?"
    r"|\b(?:localhost|[\w-]+(?:\.[\w-]+)+):\d{2,5}\b",
    re.I,
)


class Telling:
    """Takes keys, addresses and headers of the model's server out of what it says."""

    def __init__(self, client: AsyncClient, key: SecretStr) -> None:
        self._core, self._key = client._core, key

    def masked(self, text: str) -> str:
        """``text`` for callers."""
        # The longest first: a part of a secret that is masked alone leaves the rest standing.
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, GONE)
        for pattern in (_HEADER, _KEY, _ADDRESS):
            text = pattern.sub(GONE, text)
        return text

    def _secrets(self) -> set[str]:
        """Values of headers, whole and their last word, and where the server is."""
        found, endpoint = {self._key.get_secret_value()}, self._core.endpoint
        if endpoint is not None:
            values = list(endpoint.headers.values())
            found |= {*values, *(value.rpartition(" ")[2] for value in values)}
            parts = urlsplit(endpoint.base_url)
            found |= {endpoint.base_url, endpoint.root, parts.netloc, endpoint.query}
            found |= {parts.password or "", parts.hostname or ""}
        # Three letters are in every word.
        return {secret for secret in found if len(secret) > 3}
