"""The commands, and their errors as exceptions for the caller to print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from internvl_modal.errors import WeightsError
from internvl_modal.weights import WeightsCache
from internvl_modal.weights.cli import app
from tests.loopback_hub import LoopbackHub
from tests.weights.conftest import REPO

MAIN = "from internvl_modal.weights.cli import app; app()"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_model_comes_and_goes(hub: LoopbackHub, root: Path) -> None:
    folder, path = root, root / REPO / hub.branches[REPO]["main"]
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "ensure", "internvl2_5-1b", "--folder", str(folder)],
        env={**os.environ, "HF_ENDPOINT": hub.url},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.strip() == str(path)
    assert run("ensure", REPO, "--offline", "--folder", folder).stdout.strip() == str(path)
    assert "complete" in run("list", "--folder", folder).stdout
    assert "6 files are as they" in run("verify", REPO, "--deep", "--folder", folder).stdout
    (path / "config.json").write_text("")
    bad = run("verify", REPO, "--folder", folder)
    assert isinstance(bad.exception, WeightsError)
    assert "bad files: config.json" in str(bad.exception)
    assert run("prune", "--keep", 0, "--folder", folder).stdout.startswith(f"{REPO}  ")
    assert run("list", "--folder", folder).stdout == ""
    gone = run("remove", REPO, "--folder", folder)
    assert isinstance(gone.exception, WeightsError)


def test_the_folder_is_the_backends(
    cache: WeightsCache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNVL_MODAL_CACHE_DIR", str(root))
    cache.ensure(REPO, progress=None)
    assert run("list").stdout.startswith(f"{REPO}  ")
