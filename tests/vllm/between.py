"""Proxies between the client and vLLM: they ask for more, and break or lose pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

import internvl_modal as ivl
from tests.vllm.server import Server
from tests.vllm.tiny_model import text_of

START, END = "<|im_start|>", "<|im_end|>\n"


class Between(httpx.HTTPTransport):
    """Adds fields to each chat request, and keeps what went through."""

    def __init__(self, **fields: object) -> None:
        super().__init__()
        self.fields = fields
        self.asked: list[dict[str, Any]] = []
        self.answers: list[httpx.Response] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return super().handle_request(request)
        self.asked.append(json.loads(request.read()))
        response = super().handle_request(_with_body(request, self.changed(self.asked[-1])))
        if not self.asked[-1].get("stream"):
            response.read()
            self.answers.append(response)
        return response

    def changed(self, document: dict[str, Any]) -> dict[str, Any]:
        """What is sent on in place of ``document``."""
        return document | self.fields

    @property
    def prompt(self) -> str:
        """What the model was given for the last request, each picture as ``<n tiles>``."""
        text = text_of(self.answers[-1].json()["prompt_token_ids"])
        before, *pictures = text.split("<img>")
        for picture in pictures:
            context, _, after = picture.partition("</img>")
            tiles, rest = divmod(context.count("<IMG_CONTEXT>"), 256)
            assert not rest
            before += f"<{tiles} tiles>{after}"
        return before


class Spoiling(Between):
    """Sends every picture on with its beginning broken."""

    def changed(self, document: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(document).replace(";base64,", ";base64,AAAA"))


class Losing(Between):
    """Sends every message on without its pictures."""

    def changed(self, document: dict[str, Any]) -> dict[str, Any]:
        for message in document["messages"]:
            if isinstance(message["content"], list):
                kept = [part for part in message["content"] if part["type"] != "image_url"]
                message["content"] = kept
        return document


@contextmanager
def through(server: Server, between: Between, **options: Any) -> Iterator[ivl.Client]:
    """A client whose requests pass ``between``."""
    with (
        httpx.Client(transport=between) as http,
        ivl.Client(base_url=server.url, api_key=server.key, http_client=http, **options) as client,
    ):
        yield client


def saying(text: str, **fields: object) -> Between:
    """The engine writes ``text`` token by token and ends; the prompt's tokens are kept."""
    return Between(structured_outputs={"choice": [text]}, return_token_ids=True, **fields)


def turn(role: str, text: str) -> str:
    """A message as Qwen's template writes it."""
    return f"{START}{role}\n{text}{END}"


def _with_body(request: httpx.Request, document: object) -> httpx.Request:
    headers = {k: v for k, v in request.headers.items() if k != "content-length"}
    return httpx.Request(
        request.method,
        request.url,
        headers=headers,
        json=document,
        extensions=request.extensions,
    )
