"""Run the notebooks of ``examples/`` and keep what they show.

Run from the root as ``python -m tools.notebooks``; ``tests/test_examples.py`` runs them
again. What needs an account at Modal is left without outputs.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
ON_MODAL = "deployment = deploy()"
"""From the cell that begins so on, everything needs an account."""


def ran(path: Path) -> Any:
    """The notebook with the outputs of a fresh run, as it looks at its end."""
    notebook = nbformat.read(path, 4)
    sources = [cell.source for cell in notebook.cells]
    first = next((n for n, text in enumerate(sources) if text.startswith(ON_MODAL)), len(sources))
    left, notebook.cells = notebook.cells[first:], notebook.cells[:first]
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=200,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.cells += left
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = re.sub(r"[^\n]*\r", "", output.text)
    return notebook


def main() -> None:
    """Write them."""
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        nbformat.write(ran(path), path)
        print(path.name)


if __name__ == "__main__":
    main()
