"""Examples in docstrings are run, so that they stay true; those with ``+SKIP`` need a server."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tools import house


def has_examples(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8").splitlines()
    return any(line.lstrip().startswith(">>> ") and "+SKIP" not in line for line in lines)


NAMES = [
    name for name, path in house.modules(Path(__file__).parents[1]).items() if has_examples(path)
]


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_pure_folders_have_examples() -> None:
    folders = {name.partition(".")[2].partition(".")[0] for name in NAMES}
    assert {"images", "models", "planning", "protocol", "schema"} <= folders
