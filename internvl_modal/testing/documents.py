"""What LMDeploy 0.7.3 writes and reads, as far as a fake must: requests, answers, token counts."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

from internvl_modal.images.tiles import MAX_TILES, choose_grid, tile_count, tokens
from internvl_modal.testing.answers import Answer, Call

__all__ = ["call_of", "completion", "events", "models", "prompt_tokens", "refusal"]

_MARKS = re.compile(r"^(?:(?:(?:Image-|Frame)\d+: )?<IMAGE_TOKEN>\n)+")
"""Where LMDeploy's prompts have their pictures."""


def call_of(document: Mapping[str, Any], headers: Mapping[str, str]) -> Call:
    """The request as a value."""
    messages = document["messages"]
    texts = [(message["role"], _text(message)) for message in messages]
    return Call(
        prompt=_MARKS.sub("", texts[-1][1]),
        pictures=tuple(picture for picture, _ in _pictures(document)),
        system=next((text for role, text in texts if role == "system"), None),
        model=document.get("model", ""),
        options={key: document[key] for key in document if key not in ("messages", "model")},
        headers=headers,
        messages=messages,
    )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _pictures(document: Mapping[str, Any]) -> Iterator[tuple[bytes, int]]:
    """Each picture with its limit of tiles; nothing is fetched, so that other URLs are empty."""
    for message in document["messages"]:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part["type"] == "image_url":
                said = part["image_url"]
                _, _, payload = said["url"].partition(";base64,")
                yield b64decode(payload), said.get("max_dynamic_patch") or 12


def prompt_tokens(document: Mapping[str, Any], *, seen: bool) -> int:
    """About as many as InternVL 2.5 has; a picture that is not ``seen`` is one black tile."""
    text = sum(len(_text(message).encode()) // 4 + 10 for message in document["messages"])
    tiles = (_tiles(*picture) if seen else 1 for picture in _pictures(document))
    return text + sum(map(tokens, tiles))


def _tiles(picture: bytes, limit: int) -> int:
    from PIL import Image

    try:
        with Image.open(BytesIO(picture)) as opened:
            width, height = opened.size
        return tile_count(choose_grid(width, height, min(limit, MAX_TILES)))
    except OSError:  # no picture: LMDeploy sees a black one
        return 1


def models(name: str) -> dict[str, object]:
    """The list of models, signed as LMDeploy signs it."""
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "lmdeploy"}]}


def completion(document: Mapping[str, Any], answer: Answer) -> dict[str, object]:
    """The whole answer."""
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    return {**_head(document, ""), "choices": [choice], "usage": _usage(document, answer)}


def events(document: Mapping[str, Any], answer: Answer) -> Iterator[bytes]:
    """The answer as a stream, an event a word; without its second half where it is cut."""
    head = _head(document, ".chunk")
    words = re.findall(r"\S*\s*", answer.text)[:-1]
    for word in words[: len(words) // 2] if answer.cut else words:
        delta = {"role": "assistant", "content": word}
        yield _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    if answer.cut:
        return
    last = {"index": 0, "delta": {}, "finish_reason": answer.finish_reason}
    yield _event({**head, "choices": [last]})
    yield _event({**head, "choices": [], "usage": _usage(document, answer)})
    yield b"data: [DONE]\n\n"


def refusal(answer: Answer) -> dict[str, object]:
    """The error document of a status."""
    return {"object": "error", "message": answer.text, "type": "fake", "code": answer.status}


def _head(document: Mapping[str, Any], kind: str) -> dict[str, object]:
    name = {"id": "1", "object": f"chat.completion{kind}", "created": 0}
    return {**name, "model": document.get("model", "")}


def _usage(document: Mapping[str, Any], answer: Answer) -> dict[str, int]:
    asked, said = prompt_tokens(document, seen=answer.seen), len(answer.text.split())
    if answer.finish_reason == "length":
        said = document.get("max_tokens") or said
    counts = {"prompt_tokens": asked, "completion_tokens": said}
    return {**counts, "total_tokens": asked + said}


def _event(document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()
