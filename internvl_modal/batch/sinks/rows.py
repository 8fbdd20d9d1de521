"""A line as a row of Parquet."""

from __future__ import annotations

from typing import Any

READ = ["key", "run", "error_type"]
"""Columns that a later run reads."""
_TEXTS = (
    "key", "text", "model", "finish_reason", "error_type", "error_message", "run", "seen",
    "request_id", "content",
)  # fmt: skip
_COUNTS = ("prompt_tokens", "completion_tokens", "attempts")


def schema(arrow: Any) -> Any:
    """The columns; a later version may add some."""
    return arrow.schema(
        [(name, arrow.string()) for name in _TEXTS]
        + [(name, arrow.int64()) for name in _COUNTS]
        + [("seconds", arrow.float64()), ("warnings", arrow.list_(arrow.string()))]
        + [(name, arrow.list_(arrow.int64())) for name in ("tiles", "tokens")]
    )


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """A line, flat: ``tiles`` and ``tokens`` hold a number for each picture of the input."""
    usage, error = document.get("usage") or {}, document.get("error") or {}
    images = document.get("images") or []
    # Null and not an empty list: readers can then ask for rows with warnings.
    row = {
        **document,
        **usage,
        "warnings": [utf8(text) for text in document.get("warnings") or []] or None,
        "error_type": error.get("type"),
        "error_message": error.get("message"),
        "tiles": [each.get("tiles") for each in images] or None,
        "tokens": [each.get("tokens") for each in images] or None,
    }
    return {name: utf8(value) if isinstance(value, str) else value for name, value in row.items()}


def utf8(text: str) -> str:
    """``text`` with what UTF-8 cannot hold, as in names of files that are no Unicode, escaped.

    Names of files can hold bytes that are no text; Arrow refuses those, and would lose the part.

    >>> utf8("caf\\udce9.jpg")
    'caf\\\\udce9.jpg'
    """
    return text.encode("utf-8", "backslashreplace").decode()
