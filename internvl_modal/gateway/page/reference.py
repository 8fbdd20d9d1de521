"""``/docs``: the OpenAPI document as a page to read, without a script.

What is tried out is tried on the page itself; this says what each address takes and answers.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The gateway's API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page/page.css">
<body class="reference">
<header><h1>The gateway's API</h1><nav><a href="./">Try it</a>
<a href="openapi.json">openapi.json</a></nav></header>
<main>
<p>The key goes into the header <code>Authorization: Bearer KEY</code>, or is the password of HTTP
basic authentication. Every answer has an <code>X-Request-ID</code>, which the gateway's log has
too.</p>
"""


_CHAT = """-H 'Content-Type: application/json' -d '{"messages": [{"role": "user", "content": \
  [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": \
  {"url": "data:image/jpeg;base64,'$(base64 -w0 photo.jpg)'"}}]}]}'"""
BODIES = {"/": "-F image=@photo.jpg", "/v1/chat/completions": _CHAT}
"""What curl sends to an address, as an example."""


def reference(document: Json) -> str:
    """An HTML page of ``document``; everything in it is escaped."""
    found = (
        _operation(method, path, operation, document)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return f"{_HEAD}{''.join(found)}</main>\n</body>\n</html>\n"


def _operation(method: str, path: str, operation: Json, document: Json) -> str:
    return (
        f"<section><h2><code><b>{method.upper()}</b> {html.escape(path)}</code></h2>"
        f"<p>{_prose(operation.get('description', ''))}</p>{_example(method, path)}"
        f"{''.join(_bodies(operation, document))}{_answers(operation, document)}</section>\n"
    )


def _prose(text: str) -> str:
    """A docstring's text, with its code marked as such."""
    return re.sub("``(.+?)``", r"<code>\1</code>", html.escape(text))


def _example(method: str, path: str) -> str:
    """How curl asks for it, where there is no name to fill in."""
    if "{" in path:
        return ""
    body = BODIES.get(path, "") if method == "post" else ""
    words = ('curl -H "Authorization: Bearer $KEY"', body, f"$URL{path}")
    return f"<pre tabindex=0><code>{html.escape(' '.join(filter(None, words)))}</code></pre>"


def _bodies(operation: Json, document: Json) -> Iterator[str]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield _fields(f"Send <code>{html.escape(kind)}</code>", content["schema"], document)


def _answers(operation: Json, document: Json) -> str:
    rows, good = [], ""
    for status, answer in operation["responses"].items():
        rows.append((f"<code>{status}</code>", html.escape(answer["description"])))
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if status == "200" and schema:
            good = _fields("Get <code>application/json</code>", schema, document)
    return good + _table("Statuses", ("Status", "When"), rows)


def _fields(title: str, schema: Json, document: Json) -> str:
    """The fields of an object, those that must be there first."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    needed = schema.get("required", ())
    fields = sorted(schema.get("properties", {}).items(), key=lambda item: item[0] not in needed)
    rows = [
        (
            f"<code>{html.escape(name)}</code>{' needed' if name in needed else ''}",
            f"{html.escape(field.get('description', ''))} {_kind(field)}",
        )
        # What is taken and changes nothing has no schema.
        for name, field in fields
        if field and set(field) != {"enum"}
    ]
    return _table(title, ("Field", "What it is"), rows) if rows else ""


def _kind(field: Json) -> str:
    """Type, bounds and default of a field, as far as one line can say them."""
    words = [str(option) for one in field.get("anyOf", [field]) for option in _options(one)]
    text = html.escape(", ".join(dict.fromkeys(words)))
    default = field.get("default")
    return f"<small>{text}{'' if default is None else f'; {html.escape(repr(default))}'}</small>"


def _options(one: Json) -> list[object]:
    if "enum" in one:
        return [*one["enum"]]
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
    told = [f"{word} {one[name]:g}" for name, word in bounds.items() if name in one]
    kind = one.get("type", "object")
    return [] if kind == "null" else [" ".join([kind, *told])]


def _table(title: str, heads: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><td>{one}</td><td>{other}</td></tr>" for one, other in rows)
    return (
        f"<details><summary>{title}</summary><table><thead><tr><th>{heads[0]}</th>"
        f"<th>{heads[1]}</th></tr></thead><tbody>{lines}</tbody></table></details>"
    )
