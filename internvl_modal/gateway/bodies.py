"""Bodies of requests, read into models without holding up the event loop or the memory.

A JSON of 32 MB can hold ten million empty lists, which become gigabytes of Python's objects and
block the event loop for seconds. Items are therefore counted before anything is parsed.
"""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from typing import TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from internvl_modal.gateway.errors import RefusedError
from internvl_modal.schema.validation import is_branch

M = TypeVar("M", bound=BaseModel)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For integers: in JSON 3.0 is one (JSON Schema, 6.1.1)."""

MOST_ITEMS = 20_000
"""Objects, lists and their members in one JSON body, its strings aside.

A thousand messages of a few parts each, and as many again.
"""
SMALL = 64 * 1024
"""Bytes of JSON that are read faster than a thread is reached."""
_ITEM = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{,])', re.DOTALL)


async def read_json(body: bytes, model: type[M]) -> M:
    """``body`` as ``model``; raises RefusedError or pydantic's ValidationError."""
    if len(body) <= SMALL:
        return _read(body, model)
    return await asyncio.to_thread(_read, body, model)


def _read(body: bytes, model: type[M]) -> M:
    if _items(body) > MOST_ITEMS:
        raise RefusedError(422, f"the JSON holds more than {MOST_ITEMS} items")
    return model.model_validate_json(body, strict=True)


def _items(body: bytes) -> int:
    """How many items there are, at least where they are too many: a parser would make them all."""
    if body.count(b"{") + body.count(b"[") + body.count(b",") <= MOST_ITEMS:
        return 0
    found = (match for match in _ITEM.finditer(body) if match[1])
    return sum(1 for _ in islice(found, MOST_ITEMS + 1))


def first_of(error: ValidationError) -> tuple[str, str | None]:
    """Kind and place of the first of the errors; their inputs, which may be large, left out.

    For OpenAI's ``param``: its clients show one field.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"] if not is_branch(part))
    return first["type"], place[:200] or None
