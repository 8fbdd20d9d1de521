"""The page and the example do what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback_hub import LoopbackHub
from tests.weights.conftest import noise

REPOSITORY = Path(__file__).parents[2]


def code(name: str) -> str:
    if name == "page":
        text = (REPOSITORY / "docs/weights.md").read_text()
        return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    return (REPOSITORY / "examples/weights.py").read_text()


@pytest.mark.parametrize(("name", "folder"), [("page", []), ("example", []), ("example", ["x"])])
def test_runs_as_shown(hub: LoopbackHub, tmp_path: Path, name: str, folder: list[str]) -> None:
    files = {
        "InternVL2_5-1B-Q8_0.gguf": noise(5000),
        "mmproj-InternVL2_5-1B-Q8_0.gguf": noise(4000),
    }
    hub.commit("ggml-org/InternVL2_5-1B-GGUF", files)
    done = subprocess.run(
        [sys.executable, "-c", code(name), *folder],
        env={**os.environ, "HF_ENDPOINT": hub.url},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    if name == "example":
        assert "2 files verified" in done.stdout
        assert (tmp_path / (folder or ["models"])[0] / "ggml-org").is_dir()
    else:
        assert "OpenGVLab/InternVL2_5-1B" in done.stdout
        assert not list((tmp_path / "models").rglob("config.json"))
