"""What answers of a typed batch must hold, as a pydantic model or as a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

from internvl_modal.batch.outcome import FIELDS
from internvl_modal.flows.typed import Wanted
from internvl_modal.protocol import structured_output
from internvl_modal.protocol.http import Json

Schema: TypeAlias = type[BaseModel] | Mapping[str, Any]

_PLAIN: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def wanted_of(schema: object, repairs: int) -> Wanted[Any] | None:
    """What is read from an answer; raises ConfigError for what is no schema of objects."""
    if schema is None:
        return None
    if isinstance(schema, Mapping):
        from internvl_modal.protocol.json_schema import reader

        document = dict(schema)
        return Wanted(document, reader(document), repairs)
    model: type[BaseModel] = schema  # type: ignore[assignment] # ``schema_of`` checks it
    document = structured_output.schema_of(model, repairs)
    return Wanted(document, structured_output.fitting(model), repairs)


def column(name: str) -> str:
    """The field of a line that holds a field of the schema.

    >>> column("colour"), column("text")
    ('colour', 'value_text')
    """
    return f"value_{name}" if name in FIELDS else name


def columns_of(value: object) -> dict[str, object]:
    """The fields of an object that was read, as a line has them."""
    found = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return {column(name): each for name, each in found.items()} if isinstance(found, dict) else {}


def kinds_of(document: Json) -> dict[str, str]:
    """The columns of a schema's fields, and the kind of each.

    "string", "integer", "number", "boolean", "strings" for a list of them and so on, and "" for
    what a table has no column type for.
    """
    fields = document.get("properties")
    found = fields.items() if isinstance(fields, dict) else ()
    return {column(name): _kind(each, document) for name, each in found}


def _kind(field: Any, document: Json) -> str:
    """The kind of one field; a choice between one type and null is that type."""
    if not isinstance(field, dict):
        return ""
    reference = str(field.get("$ref", ""))
    if reference.startswith("#/$defs/"):
        definitions: Any = document.get("$defs", {})
        return _kind(definitions.get(reference.removeprefix("#/$defs/")), {})
    options = field.get("anyOf") or field.get("oneOf") or []
    left = [each for each in options if isinstance(each, dict) and each.get("type") != "null"]
    if options:
        return _kind(left[0], document) if len(left) == 1 else ""
    values = field.get("enum", [field["const"]] if "const" in field else [])
    kind = field.get("type")
    if isinstance(kind, list):
        kind = next(iter(kind), None) if len(set(kind) - {"null"}) == 1 else None
    if values and kind is None:
        return next((name for name in _PLAIN if all(fits(each, name) for each in values)), "")
    if kind == "array":
        inside = _kind(field.get("items"), document)
        return f"{inside}s" if inside in _PLAIN else ""
    return kind if kind in _PLAIN else ""


def fits(value: object, kind: str) -> bool:
    """Whether a value can stand in a column of this kind; nothing fits everywhere.

    >>> fits([1, 2], "integers"), fits(True, "integer"), fits(2**70, "integer")
    (True, False, False)
    """
    if value is None:
        return True
    if kind in _PLAIN:
        right = isinstance(value, _PLAIN[kind]) and (kind == "boolean") == isinstance(value, bool)
        return right and (kind != "integer" or -(2**63) <= value < 2**63)  # type: ignore[operator]
    single = kind.removesuffix("s")
    return single in _PLAIN and isinstance(value, list) and all(fits(e, single) for e in value)
