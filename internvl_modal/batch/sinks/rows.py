"""A line as a row of Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from internvl_modal.batch.outcome import FIELDS
from internvl_modal.batch.schemas import fits

READ = ["key", "run", "error_type"]
"""Columns that a later run reads."""
_TEXTS = (
    "key", "text", "model", "finish_reason", "error_type", "error_message", "run", "seen",
    "request_id", "content", "prompt", "asked", "error_text",
)  # fmt: skip
_LISTS = ("warnings", "flags", "tried")
_COUNTS = ("prompt_tokens", "completion_tokens", "attempts")


def schema(arrow: Any, more: Mapping[str, str]) -> Any:
    """The columns, with ``more`` of answers by their kinds; a later version may add some."""
    plain = {
        "string": arrow.string(),
        "integer": arrow.int64(),
        "number": arrow.float64(),
        "boolean": arrow.bool_(),
    }
    kinds = plain | {f"{name}s": arrow.list_(each) for name, each in plain.items()}
    return arrow.schema(
        [(name, arrow.string()) for name in _TEXTS]
        + [(name, arrow.int64()) for name in _COUNTS]
        + [("seconds", arrow.float64())]
        + [(name, arrow.list_(arrow.string())) for name in _LISTS]
        + [(name, arrow.list_(arrow.int64())) for name in ("tiles", "tokens")]
        + [(name, kinds[kind]) for name, kind in more.items()]
    )


def answer_columns(rows: Sequence[dict[str, Any]], known: Mapping[str, str]) -> dict[str, str]:
    """Columns of answers and their kinds; in ``rows`` what fits none becomes text of JSON.

    A journal may hold lines of an earlier schema, whose fields are columns too.
    """
    others = (name for row in rows for name in row if name not in FIELDS)
    found: dict[str, str] = {}
    for name in dict.fromkeys([*known, *others]):
        kind = known.get(name, "")
        if all(fits(row.get(name), kind) for row in rows):
            found[name] = kind
            continue
        found[name] = "string"
        for row in rows:
            if row.get(name) is not None and not isinstance(row[name], str):
                row[name] = json.dumps(row[name], ensure_ascii=False)
    return found


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """A line, flat: ``tiles`` and ``tokens`` hold a number for each picture of the input."""
    usage, error = document.get("usage") or {}, document.get("error") or {}
    images = document.get("images") or []
    # Null and not an empty list: readers can then ask for rows with warnings.
    row = {
        **document,
        **usage,
        **{name: [utf8(text) for text in document.get(name) or []] or None for name in _LISTS},
        "error_type": error.get("type"),
        "error_message": error.get("message"),
        "error_text": error.get("text"),
        "prompt": _prompt(document.get("prompt")),
        "tiles": [each.get("tiles") for each in images] or None,
        "tokens": [each.get("tokens") for each in images] or None,
    }
    return {name: utf8(value) if isinstance(value, str) else value for name, value in row.items()}


def _prompt(prompt: object) -> str | None:
    """The prompt of a row; several of them as JSON."""
    return prompt if isinstance(prompt, str | None) else json.dumps(prompt, ensure_ascii=False)


def utf8(text: str) -> str:
    """``text`` with what UTF-8 cannot hold, as in names of files that are no Unicode, escaped.

    Names of files can hold bytes that are no text; Arrow refuses those, and would lose the part.

    >>> utf8("caf\\udce9.jpg")
    'caf\\\\udce9.jpg'
    """
    return text.encode("utf-8", "backslashreplace").decode()
