"""Both clients, and the calls of the door, are the same calls; their types can be read."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from typing import Any

import httpx
import pytest

import internvl_modal as ivl
from internvl_modal.batch.iterate import AsyncBatch, Batch
from internvl_modal.batch.options import BatchOptions
from internvl_modal.client import shortcuts
from internvl_modal.client.streams import AsyncStream, Stream

TWINS: dict[Any, Any] = {
    ivl.Client: ivl.AsyncClient,
    Batch: AsyncBatch,
    Stream: AsyncStream,
    httpx.Client: httpx.AsyncClient,
    "close": "aclose",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "__next__": "__anext__",
}
PAIRS = [(ivl.Client, ivl.AsyncClient), (Batch, AsyncBatch), (Stream, AsyncStream)]
ALONE = {"closing"}
"""Of AsyncBatch: only there is a client made for one batch."""
CALLS = [
    (shortcuts.describe, shortcuts.adescribe),
    (shortcuts.describe_many, shortcuts.adescribe_many),
]


def twin(kind: Any) -> Any:
    """What stands in the async class where ``kind`` stands in the other."""
    if kind in TWINS:
        return TWINS[kind]
    arguments = typing.get_args(kind)
    if arguments and type(kind).__name__ in ("UnionType", "_UnionGenericAlias", "Union"):
        return typing.Union[tuple(twin(each) for each in arguments)]  # noqa: UP007
    return kind


def parameters(call: Any) -> dict[str, tuple[Any, Any, Any]]:
    hints = typing.get_type_hints(call)
    return {
        name: (each.kind, each.default, hints.get(name))
        for name, each in inspect.signature(call).parameters.items()
        if name != "self"
    }


def same(one: Any, other: Any) -> None:
    expected = {
        name: (kind, default, twin(hint)) for name, (kind, default, hint) in parameters(one).items()
    }
    assert expected == parameters(other)
    returns = (typing.get_type_hints(each).get("return") for each in (one, other))
    assert twin(next(returns)) == next(returns)


def calls(kind: type) -> dict[str, Any]:
    return {
        name: member
        for name in dir(kind)
        if (not name.startswith("_") or name == "__init__") and name not in ALONE
        if callable(member := inspect.getattr_static(kind, name))
    }


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_names_defaults_and_annotations(one: type, other: type) -> None:
    mine, its = calls(one), calls(other)
    assert {TWINS.get(name, name) for name in mine} == set(its)
    for name, call in mine.items():
        if name != "__init__" or one is ivl.Client:
            same(call, its[TWINS.get(name, name)])


@pytest.mark.parametrize(("one", "other"), CALLS)
def test_calls_of_the_door(one: Any, other: Any) -> None:
    same(one, other)


@pytest.mark.parametrize(
    "kind", [*[k for pair in PAIRS for k in pair], BatchOptions, ivl.Options, ivl.Retry]
)
def test_every_type_hint_can_be_read(kind: Any) -> None:
    assert typing.get_type_hints(kind) is not None
    for call in calls(kind).values():
        if inspect.isfunction(call):
            typing.get_type_hints(call)


def test_a_client_is_made_without_what_only_some_need() -> None:
    code = """
import sys, internvl_modal as ivl
ivl.Client(base_url="http://127.0.0.1:9/v1").close()
print([name for name in ("aiohttp", "anyio", "modal") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
