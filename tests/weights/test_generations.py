"""Every test of this folder again, with huggingface_hub below 1.0."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.weights.environments import below_1

pytestmark = [
    pytest.mark.hub,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("INTERNVL_MODAL_TEST_HUB") != "1",
        reason="makes an environment with an older huggingface_hub: INTERNVL_MODAL_TEST_HUB=1",
    ),
]


def test_below_1(tmp_path: Path) -> None:
    assert int(version("huggingface_hub").split(".")[0]) >= 1
    python, here = below_1(), Path(__file__).parent
    code = "import huggingface_hub; print(huggingface_hub.__version__)"
    told = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert told.stdout.startswith("0.")
    # What the outer run is told, such as to use several processes, is not meant for this one.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    base = f"--basetemp={tmp_path / 'below-1'}"
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", base, "-m", "not hub", str(here)],
        cwd=Path(__file__).parents[2],
        env=env,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 80  # type: ignore[index]
