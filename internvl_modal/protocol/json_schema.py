"""JSON schemas of callers, checked against answers.

A schema comes from a stranger and is run against a model's answer: it may not reach out (references
to URLs), not run for ever (regular expressions) and not be more than a schema of objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any

from internvl_modal.errors import ConfigError, MissingExtraError

try:
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import SchemaError, ValidationError
except ImportError as missing:
    raise MissingExtraError(missing.name or "jsonschema", "schema") from missing
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from pydantic_core import ValidationError as NoMatch
from referencing import Registry
from referencing.exceptions import Unresolvable

from internvl_modal.protocol.http import Json

MOST_TOLD = 10
MOST_NODES = 2000
"""Objects and lists in one schema."""
MOST_PATTERNS = 100
MOST_STEPS = 50_000
"""Keywords that are looked at for one answer: a short schema can ask for billions, by references
that double at each step.
"""


def reader(schema: Json) -> Callable[[Json], Json]:
    """What passes on an object that fits ``schema``, and raises ValueError for another.

    No reference outside the schema is followed. Raises ConfigError for what is no schema of
    objects.

    JSON Schema 2020-12. At most ten faults are told: they go back to the model as a repair.
    """
    if schema.get("type", "object") != "object":
        raise ConfigError("the schema's type must be 'object'", hint="put it into a property")
    try:
        patterns = list(_patterns(schema))
        if len(patterns) > MOST_PATTERNS or _nodes(schema) > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES} parts, or {MOST_PATTERNS} patterns")
        Draft202012Validator.check_schema(schema)
        for pattern in patterns:
            _linear(pattern)
    except (SchemaError, PatternError, RecursionError, ValueError) as error:
        text = getattr(error, "message", None) or str(error)
        raise ConfigError(f"not a JSON schema: {text:.200}", hint="2020-12 is read") from error
    # An empty registry: with the default one a reference to a URL would be fetched.
    validator = _Validator(schema, registry=Registry())

    def read(found: Json) -> Json:
        _steps.set(iter(range(MOST_STEPS)))
        try:
            # Lazily: a large answer can be wrong in a million places.
            wrong = list(islice(validator.iter_errors(found), MOST_TOLD))
        except (Unresolvable, RecursionError) as error:
            raise ConfigError(
                "the schema refers to what is not in it", hint="put it under $defs"
            ) from error
        if wrong:
            raise ValueError(
                "; ".join(f"{error.json_path}: {error.message:.200}" for error in wrong)
            )
        return found

    return read


@lru_cache(256)
def _linear(pattern: str) -> SchemaValidator:
    """A regular expression in linear time: Python's own may take for ever, event loop and all."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def _matches(pattern: str, text: str) -> bool:
    """Whether ``pattern`` is found anywhere in ``text``, by Rust's engine, which cannot
    backtrack.
    """
    try:
        _linear(pattern).validate_python(text)
    except NoMatch:
        return False
    return True


def _pattern(_: Any, pattern: str, found: Any, __: Any) -> Iterator[ValidationError]:
    """The keyword ``pattern`` of jsonschema, with that engine."""
    if isinstance(found, str) and not _matches(pattern, found):
        yield ValidationError(f"{found!r:.60} does not match {pattern!r}")


def _unique(_: Any, wanted: bool, found: Any, __: Any) -> Iterator[ValidationError]:
    """The keyword ``uniqueItems``, in linear time: jsonschema's compares each with each."""
    if wanted and isinstance(found, list):
        seen = {json.dumps(item, sort_keys=True) for item in found}
        if len(seen) < len(found):
            yield ValidationError("it has an item twice")


_steps: ContextVar[Iterator[int]] = ContextVar("steps")
"""Those that are left for the answer that is being read."""


def _counted(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """``keyword`` as long as there are steps left; raises ValueError then."""

    def look(*given: Any) -> Iterator[ValidationError]:
        if next(_steps.get(), None) is None:
            raise ValueError(f"checking it takes more than {MOST_STEPS:,} steps")
        yield from keyword(*given) or ()

    return look


_KEYWORDS = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique}
_Validator = validators.extend(  # type: ignore[no-untyped-call] # in its stubs
    Draft202012Validator, {name: _counted(keyword) for name, keyword in _KEYWORDS.items()}
)


def _nodes(node: object) -> int:
    """Objects and lists in ``node``, itself included."""
    if not isinstance(node, dict | list):
        return 0
    return 1 + sum(map(_nodes, node.values() if isinstance(node, dict) else node))


def _patterns(node: object) -> Iterator[str]:
    """Every pattern of a schema; raises ValueError for the one place where Python's would run."""
    if isinstance(node, dict):
        if isinstance(node.get("patternProperties"), dict) and node["patternProperties"]:
            raise ValueError("patternProperties is not supported")
        yield from [node["pattern"]] if isinstance(node.get("pattern"), str) else []
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _patterns(item)
