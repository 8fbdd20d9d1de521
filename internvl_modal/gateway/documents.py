"""Pieces of the OpenAPI document: what every address may answer besides what it is for.

A client that is generated from the document must know every error it can get; FastAPI by itself
would tell of 200 and 422 in a form of its own, which is never sent.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Told(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None
    request_id: str


class Problem(BaseModel):
    """The body of every error."""

    error: Told


def _of(**described: str) -> dict[int | str, dict[str, Any]]:
    return {
        int(status[1:]): {"model": Problem, "description": text}
        for status, text in described.items()
    }


KEYED = _of(_401="The key is missing or wrong.")
KNOWING = KEYED | _of(
    _429="The model's server is busy.",
    _500="The gateway failed; its log says why.",
    _502="The model's server failed.",
    _503="The model's server is still starting, or the gateway is busy; see Retry-After.",
    _504="It took too long.",
)
ASKING = KNOWING | _of(
    _400="The request is wrong, below /v1; or the body or a form is broken.",
    _403="Never by the gateway itself; a proxy before it may say so.",
    _408="The body took too long.",
    _413="The body is too large.",
    _422="The request is wrong.",
)
# FastAPI would document a stream as JSON.
_EVENTS = {"schema": {"description": "Server-sent events, with stream=true."}}
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": _EVENTS}}}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of ``model`` without references, to stand inside another document.

    Inside ``requestBody`` references would point to components that are not there.
    """
    schema = model.model_json_schema()
    found: dict[str, Any] = _inlined(schema, schema.get("$defs", {}))
    return found


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    # A discriminator points to components by name, and there are none here.
    left_out = ("$defs", "discriminator")
    return {k: _inlined(item, definitions) for k, item in node.items() if k not in left_out}
