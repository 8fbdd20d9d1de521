"""JSON objects in the text of a model, whatever stands around them.

Small models wrap their JSON in prose, in Markdown's fences, in a repetition of the schema. A
regular expression cannot find the end of an object, and ``raw_decode`` would take the first inner
object of a broken one for the answer.

>>> objects_in('Here it is: {"a": [1, 2,]} and no more')
[{'a': [1, 2]}]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from internvl_modal.protocol.http import Json, read_json

_FENCE = re.compile(r"(`{3,}|~{3,})[^\n`~]*\n?(.*?)\1", re.DOTALL)
# Strings are matched as a whole, so that brackets inside them are not counted.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)
_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


@dataclass(frozen=True)
class Broken:
    """An object that begins and cannot be read: cut off, or not JSON."""

    problem: str
    cut: bool = False
    """Whether it is never closed, so that nothing after it can be told from its inside."""

    def __str__(self) -> str:
        return self.problem


def fenced_blocks(text: str) -> list[str]:
    """What stands between Markdown's fences, in order; a fence that is never closed is none."""
    return [found[2] for found in _FENCE.finditer(text)]


def objects_in(text: str) -> list[Json | Broken]:
    """Every object in ``text``, in order, never one inside another, be that whole or not.

    A trailing comma is forgiven, as are control characters in strings.
    """
    found: list[Json | Broken] = []
    start = text.find("{")
    while start >= 0:
        end = _end(text, start)
        if end is None:
            return [*found, Broken("the JSON object is cut: it is never closed", cut=True)]
        each = _read(text[start:end])
        if not isinstance(each, Broken) or ":" in text[start:end]:  # else prose in braces
            found.append(each)
        start = text.find("{", end)
    return found


def _end(text: str, start: int) -> int | None:
    """Where the object that begins at ``start`` is closed; None where it never is."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
            if depth == 0:
                return token.end()
    return None


def _read(text: str) -> Json | Broken:
    """The object that ``text`` is, trailing commas forgiven; else why it cannot be read."""
    problem = ""
    for attempt in (text, _STRING_OR_COMMA.sub(lambda found: found[1] or "", text)):
        try:
            document = read_json(attempt, strict=False)
        except ValueError as error:
            problem = problem or f"the JSON object cannot be read: {error}"
        else:
            return cast("Json", document)
    return Broken(problem)
