"""Typed answers: the prompt that asks for JSON, the tolerant reading, the repair.

Even a server that holds answers to a schema can be cut at ``max_tokens`` or pass over the field, so
every answer is read tolerantly and checked by pydantic, and a wrong one goes back with the reason.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
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
T = TypeVar("T")

EXTRACT_PROMPT = "Read this image."
"""Neutral on purpose: the names of the fields say what to look for."""
VIDEO_PROMPT = "Describe this video in detail."


def schema_of(schema: type[BaseModel], repairs: int) -> Json:
    """The JSON schema of a model whose answers are objects; raises ConfigError.

    A list or a number as the whole answer is refused: models asked for one object write one more
    reliably, and a field does the same.
    """
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
    """The question with the JSON schema that the answer must fit.

    The schema stands without spaces: it is paid for as prompt tokens.
    """
    rules = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return (
        f"{prompt or EXTRACT_PROMPT}\n\n"
        f"Answer with one JSON object that fits this JSON schema, and nothing else:\n{rules}"
    )


def fitting(schema: type[M]) -> Callable[[Json], M]:
    """Read an object into ``schema``; what that returns raises ValueError with the reason."""

    def read(found: Json) -> M:
        try:
            return schema.model_validate(found)
        except ValidationError as error:
            raise ValueError(explain(error)) from error

    return read


def read_answer(text: str, read: Callable[[Json], T]) -> T:
    """The answer in ``text``: in a fenced block if any holds one, else the last that fits.

    Models repeat the schema, give examples and think aloud before they answer. Raises ValueError
    with the reason where no object fits, also where the last one is cut or broken: an older one,
    or one inside it, is not the answer.
    """
    whole = objects_in(text)
    if whole and isinstance(last := whole[-1], Broken) and last.cut:
        raise ValueError(str(last))
    for block in reversed(fenced_blocks(text)):
        found, _ = _last_fitting(block, read)
        if found is not None:
            return found
    found, problem = _last_fitting(text, read)
    if found is None:
        raise ValueError(problem)
    return found


def _last_fitting(text: str, read: Callable[[Json], T]) -> tuple[T | None, str]:
    """The last object in ``text`` that ``read`` takes, or why there is none."""
    problem = ""
    for found in reversed(objects_in(text)):
        if isinstance(found, Broken):
            return None, problem or str(found)
        try:
            return read(found), ""
        except ValueError as error:
            problem = problem or str(error)
    return None, problem or "the answer holds no JSON object"


def repaired(call: ChatCall, text: str, why: str) -> ChatCall:
    """The same call with the wrong answer and what was wrong with it as further turns.

    The wrong answer is part of the conversation: a model mends what it sees. The picture is sent
    again, as servers keep nothing between requests.
    """
    complaint = (
        f"That answer does not fit the JSON schema: {why}\n"
        "Answer again with the corrected JSON object, and nothing else."
    )
    turns = (*call.turns, Turn("assistant", text), Turn("user", complaint))
    return dataclasses.replace(call, turns=turns)


def invalid(name: str, why: str, answer: Description) -> OutputInvalidError:
    """The error when no repair is left, or none would help; it keeps the raw answer."""
    advice = "allow more repairs, a larger model or a simpler schema"
    if answer.finish_reason == "length":
        advice = "raise max_tokens, or spend fewer tiles where the context is full"
    return OutputInvalidError(
        f"the answer does not fit {name}: {why}",
        hint=f"the raw answer is in .text; {advice}",
        status=200,
        request_id=answer.request_id,
        text=answer.text,
    )
