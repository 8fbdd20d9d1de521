"""The bytes of a chat completion request."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import pybase64

from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.dialects.registry import dialect_of
from internvl_modal.protocol.http import HttpRequest, Json

if TYPE_CHECKING:
    from internvl_modal.schema.results import PreparedImage


_JSON = json.JSONEncoder(ensure_ascii=False)
_LEAST = 64 * 1024
"""Bytes of an answer beside its text; also for servers that take ``max_tokens`` for a hint."""


def chat_request(
    call: ChatCall, *, stream: bool = False, schema: Json | None = None
) -> HttpRequest:
    """The chat completion request; ``schema`` holds the answer to it, where the server can.

    Keys of the endpoint are in the headers; nothing of them is in the body, which may be logged by
    a server. ``relayed`` fields come last but one: what a caller of the gateway sets wins over
    ours.
    """
    dialect = dialect_of(call.capabilities)
    payloads: dict[str, bytes] = {}

    def attach(image: PreparedImage) -> str:
        placeholder = f"{_mark()}{len(payloads)}."
        payloads[placeholder] = image.payload
        return f"data:{image.info.sent_format};base64,{placeholder}"

    document: Json = {
        "model": call.model,
        "messages": dialect.messages(call, attach),
        **dialect.sampling(call.options),
        **dialect.tile_limit(call),
        **(call.relayed or {}),
    }
    if stream:
        # Without ``include_usage`` a stream brings no token counts, and no picture can be verified.
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    if schema is not None:
        document |= dialect.answer_format(schema)
    headers = {**dialect.headers, **call.endpoint.headers, "content-type": "application/json"}
    path = call.endpoint.path("chat/completions")
    return HttpRequest("POST", path, headers, encode(document, payloads))


@lru_cache(maxsize=1)
def _mark() -> str:
    """What stands for a picture until the request is put together, and is never sent.

    Random, as a prompt may hold any text: a fixed one could be written by a user.
    """
    return secrets.token_hex(16)


def answer_bytes(call: ChatCall, *, stream: bool = False) -> int | None:
    """Most bytes that the answer may have; None where the request does not say how long it is.

    A token has at most 128 bytes, escaped; in a stream it has an event of its own, at most 1 KiB.
    """
    tokens = call.options.max_tokens
    if tokens is None or call.relayed is not None:  # which may ask for logprobs
        return None
    return _LEAST + tokens * (1024 if stream else 128)


def encode(document: Json, payloads: Mapping[str, bytes]) -> bytes:
    """JSON with each placeholder replaced by its payload in base64.

    The payloads never pass through the JSON encoder, which would scan and copy every byte.

    Lone surrogates, which file names can bring into a prompt, become question marks: no server
    takes them as UTF-8.
    """
    rest = _JSON.encode(document).encode("utf-8", "replace")
    pieces: list[bytes] = []
    for placeholder, payload in payloads.items():
        before, _, rest = rest.partition(placeholder.encode())
        pieces += (before, pybase64.b64encode(payload))
    return b"".join([*pieces, rest])
