"""A batch in a real Jupyter kernel, whose event loop runs already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.loopback import Loopback

IMAGES = Path(__file__).parents[2] / "examples" / "images"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.argv[1])])
NotebookClient(notebook, timeout=60).execute()
for output in notebook.cells[0].outputs:
    print(output.get("text") or output["data"]["text/plain"])
"""


def test_a_batch_in_a_notebook(loopback: Loopback) -> None:
    cell = (
        "import internvl_modal as ivl\n"
        f"batch = ivl.describe_many([{str(IMAGES / 'coffee.jpg')!r}], detail=1)\n"
        "[o.text for o in batch], batch"
    )
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, cell],
        env={**os.environ, "INTERNVL_MODAL_BASE_URL": loopback.url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(['A cat.'],\n <Batch: 1/1 pictures, " in done.stdout
    assert "1/1" in done.stdout
    assert "0 failed" in done.stdout
