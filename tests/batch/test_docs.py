"""The page and the example do what they show."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_modal.batch.options import BatchOptions, BatchSettings
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.batch.sources.rows import COLUMNS
from tests.batch.conftest import Fast, lines, make_pictures
from tests.served import REPOSITORY


def test_the_table_has_all_options() -> None:
    page = (REPOSITORY / "docs/batches.md").read_text()
    _, start, table = page.partition("| | default | |\n|---|---|---|\n")
    found = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", table.partition("\n\n")[0], re.MULTILINE))
    assert start
    fields = {info.alias or name: info for name, info in BatchSettings.model_fields.items()}
    assert {name: ast.literal_eval(default) for name, default in found.items()} == {
        name: field.default for name, field in fields.items()
    }
    assert set(fields) <= BatchOptions.__annotations__.keys()
    for ending in re.findall(
        r"`(\.\w+)`", page.partition("the files are taken that end in")[2].partition(";")[0]
    ):
        assert is_picture(f"a{ending}")
    for name in COLUMNS:
        assert f"`{name}`" in page


def test_the_example_says_how_it_is_called() -> None:
    example = REPOSITORY / "examples/batch.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "python examples/batch.py photos captions.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["page", "example"])
def test_runs_as_shown(fast: Callable[..., Fast], tmp_path: Path, name: str) -> None:
    make_pictures(tmp_path / "photos", 5)
    text = (REPOSITORY / "docs/batches.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    if name == "example":
        code = (REPOSITORY / "examples/batch.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", code, "photos", "captions.jsonl"],
        env={**os.environ, "INTERNVL_MODAL_BASE_URL": fast().url},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    if name == "page":
        assert "['second']" in done.stdout
        assert "5 done, " in done.stdout
        assert len(lines(Path("captions.jsonl"))) == 5 + 2 + 3 + 5
    else:
        assert "0 failed" in done.stdout
        assert len(lines(Path("captions.jsonl"))) == 5
