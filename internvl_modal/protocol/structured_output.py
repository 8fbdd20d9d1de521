"""Typed answers: the prompt that asks for JSON, the tolerant reading, the repair."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from internvl_modal.errors import ConfigError, OutputInvalidError
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.json_objects import Broken, fenced_blocks, objects_in
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.validation import explain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from internvl_modal.schema.results import Description

M = TypeVar("M", bound="BaseModel")

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


def read_answer(text: str, schema: type[M]) -> M:
    """The answer in ``text``: in a fenced block if any holds one, else the last that fits.

    Models repeat the schema, give examples and think aloud before they answer. Raises ValueError
    with the reason where no object fits, also where the last one is cut or broken: an older one,
    or one inside it, is not the answer.
    """
    whole = objects_in(text)
    if whole and isinstance(last := whole[-1], Broken) and last.cut:
        raise ValueError(str(last))
    for block in reversed(fenced_blocks(text)):
        fitting, _ = _last_fitting(block, schema)
        if fitting is not None:
            return fitting
    fitting, problem = _last_fitting(text, schema)
    if fitting is None:
        raise ValueError(problem)
    return fitting


def _last_fitting(text: str, schema: type[M]) -> tuple[M | None, str]:
    """The last object in ``text`` that fits ``schema``, or why there is none."""
    problem = ""
    for found in reversed(objects_in(text)):
        if isinstance(found, Broken):
            return None, problem or str(found)
        try:
            return schema.model_validate(found), ""
        except ValidationError as error:
            problem = problem or explain(error)
    return None, problem or "the answer holds no JSON object"


def repaired(call: ChatCall, text: str, why: str) -> ChatCall:
    """The same call with the wrong answer and what was wrong with it as further turns."""
    complaint = (
        f"That answer does not fit the JSON schema: {why}\n"
        "Answer again with the corrected JSON object, and nothing else."
    )
    turns = (*call.turns, Turn("assistant", text), Turn("user", complaint))
    return dataclasses.replace(call, turns=turns)


def invalid(schema: type[BaseModel], why: str, answer: Description) -> OutputInvalidError:
    """The error when no repair is left, or none would help; it keeps the raw answer."""
    advice = "allow more repairs, a larger model or a simpler schema"
    if answer.finish_reason == "length":
        advice = "raise max_tokens, or spend fewer tiles where the context is full"
    return OutputInvalidError(
        f"the answer does not fit {schema.__name__}: {why}",
        hint=f"the raw answer is in .text; {advice}",
        status=200,
        request_id=answer.request_id,
        text=answer.text,
    )
