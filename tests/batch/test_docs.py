"""The page and the example do what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.batch.conftest import REPOSITORY, Fast, lines, make_pictures


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
        assert len(lines(Path("captions.jsonl"))) == 5 + 2 + 5
    else:
        assert "0 failed" in done.stdout
        assert len(lines(Path("captions.jsonl"))) == 5
