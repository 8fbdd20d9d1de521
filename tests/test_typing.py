"""What type checkers make of the package in a user's program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONSUMER = Path(__file__).parent / "typing" / "consumer.py"


def test_mypy_knows_every_type() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(CONSUMER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_knows_every_type(tmp_path: Path) -> None:
    """In its strict mode, where a type that is not known is an error."""
    (tmp_path / "consumer.py").write_text(CONSUMER.read_text())
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "basedpyright", "-p", str(tmp_path)]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
