"""Pydantic's errors in our words.

pydantic's own message has a line with a link for every branch of every union. Here each field is
named once, with what was given, and never with a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class FrozenModel(BaseModel):
    """Plain data that is not changed once it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")


MOST_TOLD = 10
"""Errors of one document that are told; nobody reads more at once."""


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: each field, what is wrong and the value given."""
    found: dict[str, list[str]] = {}
    # A union of types gives an error for each of its members: they are gathered by field.
    for item in error.errors(include_url=False)[:MOST_TOLD]:
        name = ".".join(str(part) for part in item["loc"] if not is_branch(part))
        subject, wrong = _explained(name, item)
        said = found.setdefault(subject, [])  # more than once for each branch of a union
        if said:
            wrong = wrong.removeprefix("Input should be ").partition(", ")[0]
        if wrong not in said:
            said.append(wrong)
    told = "; ".join(f"{subject}{', or '.join(said)}" for subject, said in found.items())
    more = error.error_count() - MOST_TOLD
    # The count is of pydantic's errors, branches included, so it can be higher than the fields'.
    return f"{told}; and {more} more" if more > 0 else told


def _explained(name: str, item: ErrorDetails) -> tuple[str, str]:
    """What one error is about, and what is wrong with it."""
    kind, given, wrong = item["type"], item["input"], item["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return f"{name} ", "is missing"
    if kind == "extra_forbidden":
        wrong = "there is no such field"
    if not name and kind in ("value_error", "json_invalid"):
        return "", wrong
    secret = _SECRET.search(name.lower()) is not None
    # Sixty characters: a data URL or a prompt would make the message unreadable.
    value = "***" if secret else "bytes" if isinstance(given, bytes) else repr(given)[:60]
    if isinstance(given, Mapping):  # variables of an engine, for one: any of them may be a key
        value = f"{{{', '.join(map(str, given))[:60]}}}"
    return f"{name or 'value'}={value}: ", wrong


_SECRET = re.compile(r"key|secret|password|authorization|header|(^|[._])token$|hf_token")
"""By name, since a wrong value need not look like a key. "token" only where it is the whole name,
for ``max_tokens`` and its like are no secrets.
"""


def is_branch(part: object) -> bool:
    """Whether pydantic added this part of a location to tell the members of a union apart."""
    named = part in ("constrained-int", "int", "str")
    return isinstance(part, str) and (named or "[" in part or "(" in part)
