"""What type checkers make of the package in a user's program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "typing"
UNKNOWN = [f"Unknown{what}Type" for what in ("Argument", "Member", "Parameter", "Variable")]
LIBRARIES = ["MissingTypeStubs", *UNKNOWN]
"""What pyright says of data sets' own packages, which come without types."""


@pytest.mark.parametrize("name", ["consumer", "frames"])
def test_mypy_knows_every_type(name: str) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"{FOLDER}/{name}.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "passed_over"), [("consumer", []), ("frames", LIBRARIES)])
def test_pyright_knows_every_type(tmp_path: Path, name: str, passed_over: list[str]) -> None:
    """In its strict mode, where a type that is not known is an error."""
    (tmp_path / f"{name}.py").write_text((FOLDER / f"{name}.py").read_text())
    settings = {"typeCheckingMode": "strict"} | {f"report{what}": "none" for what in passed_over}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "-p", str(tmp_path)]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
