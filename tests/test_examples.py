"""The notebooks of ``examples/``; the one that deploys is run in ``tests/deploy``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
LOCAL = sorted(path.name for path in EXAMPLES.glob("*.ipynb") if "deploy" not in path.name)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", LOCAL)
def test_a_notebook_runs_and_shows_what_it_showed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    kept = nbformat.read(EXAMPLES / name, 4)
    run = nbformat.read(EXAMPLES / name, 4)
    NotebookClient(run, timeout=200, resources={"metadata": {"path": tmp_path}}).execute()
    for before, now in zip(code(kept), code(run), strict=True):
        assert kinds(now) == kinds(before)
    assert not re.search(r"/(tmp|root|home|work)/", (EXAMPLES / name).read_text())


def kinds(cell: Any) -> list[str]:
    """Of its outputs but the bar: times and the order of a batch differ from run to run."""
    return [str(o.output_type) for o in cell.outputs if o.get("name") != "stderr"]
