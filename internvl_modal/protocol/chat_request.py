"""A chat completion request: what is asked, and its bytes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pybase64

from internvl_modal.protocol.dialects.base import sampling
from internvl_modal.protocol.dialects.registry import render
from internvl_modal.protocol.endpoint import Capabilities, Endpoint
from internvl_modal.protocol.http import HttpRequest, Json
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.options import DescribeOptions

if TYPE_CHECKING:
    from internvl_modal.images.encode import PreparedImage


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
