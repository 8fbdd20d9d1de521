"""Typed answers: the prompt that asks for JSON, the tolerant reading, the repair."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from pydantic.errors import PydanticUserError

from internvl_modal.errors import ConfigError, OutputInvalidError
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn

if TYPE_CHECKING:
    from pydantic import BaseModel

    from internvl_modal.protocol.chat_request import ChatCall
    from internvl_modal.schema.results import Description

EXTRACT_PROMPT = "Read this image."
VIDEO_PROMPT = "Describe this video in detail."


def schema_of(schema: type[BaseModel], repairs: int) -> Json:
    """The JSON schema of a model whose answers are objects; raises ConfigError."""
    if repairs < 0:
        raise ConfigError(f"repairs={repairs} allows no answer", hint="0 or more")
    try:
        document = schema.model_json_schema()
    except (AttributeError, PydanticUserError) as error:
        raise ConfigError(
            f"{schema!r:.100} has no JSON schema", hint="give a pydantic model's class"
        ) from error
    if document.get("type", "object") != "object":
        raise ConfigError(
            f"{schema.__name__} is no JSON object but {document['type']!r}",
            hint="put it into a field of a model",
        )
    return document


def first_prompt(prompt: str | None, document: Json) -> str:
    """The question with the JSON schema that the answer must fit."""
    rules = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return (
        f"{prompt or EXTRACT_PROMPT}\n\n"
        f"Answer with one JSON object that fits this JSON schema, and nothing else:\n{rules}"
    )


def read_object(text: str) -> object:
    """The first JSON object in ``text``, whatever stands around it; ValueError if there is none."""
    decoder = json.JSONDecoder(strict=False)
    start = text.find("{")
    problem = "the answer holds no JSON object"
    while start >= 0:
        try:
            return decoder.raw_decode(text, start)[0]
        except json.JSONDecodeError as error:
            problem = f"the JSON object cannot be read: {error}"
        except RecursionError:
            problem = "the JSON object is nested too deeply"
        start = text.find("{", start + 1) if start < 4096 else -1
    raise ValueError(problem)


def repaired(call: ChatCall, text: str, why: str) -> ChatCall:
    """The same call with the wrong answer and what was wrong with it as further turns."""
    complaint = (
        f"That answer does not fit the JSON schema: {why}\n"
        "Answer again with the corrected JSON object, and nothing else."
    )
    turns = (*call.turns, Turn("assistant", text), Turn("user", complaint))
    return dataclasses.replace(call, turns=turns)


def invalid(
    text: str, schema: type[BaseModel], why: str, answer: Description
) -> OutputInvalidError:
    """The error when no repair is left, or none would help; it keeps the raw answer."""
    advice = "allow more repairs, a larger model or a simpler schema"
    if answer.finish_reason == "length":
        advice = "raise max_tokens, or spend fewer tiles where the context is full"
    error = OutputInvalidError(
        f"the answer does not fit {schema.__name__}: {why}",
        hint=f"the raw answer is in .text; {advice}",
        status=200,
        request_id=answer.request_id,
    )
    error.text = text
    return error
