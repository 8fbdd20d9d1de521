"""The commands, and their errors as exceptions for the caller to print."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from internvl_modal.cli.weights import app
from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights import WeightsCache
from tests.loopback_hub import LoopbackHub
from tests.modal_plane.plane import Plane
from tests.weights.conftest import REPO, model_files, noise

MAIN = "from internvl_modal.cli.weights import app; app()"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fetch(hub: LoopbackHub, *arguments: object) -> str:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT once."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        env={**os.environ, "HF_ENDPOINT": hub.url},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip()


def test_a_model_comes_and_goes(hub: LoopbackHub, root: Path) -> None:
    folder, path = root, root / REPO / hub.branches[REPO]["main"]
    assert fetch(hub, "ensure", "internvl2_5-1b", "--folder", folder) == str(path)
    assert run("ensure", REPO, "--offline", "--folder", folder).stdout.strip() == str(path)
    assert "complete" in run("list", "--folder", folder).stdout
    assert "6 files are as they" in run("verify", REPO, "--deep", "--folder", folder).stdout
    (path / "config.json").write_text("")
    bad = run("verify", REPO, "--folder", folder)
    assert isinstance(bad.exception, WeightsError)
    assert "bad files: config.json" in str(bad.exception)
    assert run("prune", "--keep", 0, "--folder", folder).stdout.startswith(f"{REPO}  ")
    empty = run("list", "--folder", folder)
    assert (empty.stdout, empty.stderr) == ("", f"no models in {folder}\n")
    gone = run("remove", REPO, "--folder", folder)
    assert isinstance(gone.exception, WeightsError)


def test_code_of_a_repository_is_told_with_its_commit(cache: WeightsCache, root: Path) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    assert snapshot.code == ("modeling_internvl_chat.py",)
    said = run("ensure", REPO, "--offline", "--folder", root)
    assert said.stderr == (
        "LMDeploy runs the Python in this repository (modeling_internvl_chat.py), as it is at "
        f"commit {snapshot.commit}; --revision {snapshot.commit} pins it elsewhere too\n"
    )


def test_where_there_is_no_code_none_is_told(hub: LoopbackHub, root: Path) -> None:
    hub.commit("a/b", {"config.json": b"{}", "model.safetensors": noise(2000)})
    WeightsCache(root, endpoint=hub.url).ensure("a/b", progress=None)
    assert run("ensure", "a/b", "--offline", "--folder", root).stderr == ""


def test_code_that_comes_is_logged(cache: WeightsCache, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "internvl_modal")
    commit = cache.ensure(REPO, progress=None).commit
    told = "brings Python that LMDeploy runs (modeling_internvl_chat.py): that of commit"
    assert any(f"{told} {commit}" in message for message in caplog.messages)


def test_an_empty_folder_is_refused(root: Path) -> None:
    """As a variable of the shell that is not set gives it."""
    refused = run("prune", "--folder", "")
    assert isinstance(refused.exception, ConfigError)


def test_the_folder_is_the_backends(
    cache: WeightsCache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNVL_MODAL_CACHE_DIR", str(root))
    cache.ensure(REPO, progress=None)
    assert run("list").stdout.startswith(f"{REPO}  ")


@pytest.mark.parametrize("selection", [[], ["--variant", "gguf"], ["--file", "mmproj-a b.gguf"]])
def test_the_command_that_verify_names_repairs(
    hub: LoopbackHub, tmp_path: Path, selection: list[str]
) -> None:
    """The commit that is damaged, though its branch has moved."""
    folder = tmp_path / "the weights"
    content = {**model_files(), "m.gguf": noise(2000, 1), "mmproj-a b.gguf": noise(2000, 2)}
    hub.commit("a/b", content, branch="v1")
    asked = ["a/b", "--revision", "v1", *selection, "--folder", folder]
    path = Path(fetch(hub, "ensure", *asked))
    hub.commit("a/b", {"config.json": b"{}"}, branch="v1")
    victim = path / ("mmproj-a b.gguf" if selection else "tokenizer.json")
    victim.write_bytes(b"")
    said = str(run("verify", "a/b", "--folder", folder).exception)
    command = re.search(r"\(internvl-modal weights (.*) repairs them\)", said)
    assert command, said
    assert fetch(hub, *shlex.split(command[1])) == str(path)
    assert victim.read_bytes() == content[victim.name]
    assert not run("verify", "a/b", "--deep", "--folder", folder).exception


def test_a_volume_of_another_environment(hub: LoopbackHub, tmp_path: Path) -> None:
    with Plane() as plane:
        mount = plane.volume_path("weights")
        cached = WeightsCache(mount, endpoint=hub.url).ensure(REPO, progress=None)
        cached.file("config.json").write_text("")
        there = ["--volume", "weights", "--environment", "staging"]

        def weights(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", MAIN, *arguments],
                env={**plane.client_env(tmp_path), "PYTHONWARNINGS": "default", "COLUMNS": "500"},
                cwd=Path(__file__).parents[2],
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            return done.stdout

        assert weights("list", *there).startswith(f"{REPO}  ")
        assert shlex.join(there) in weights("verify", REPO, *there)
        for verb in (["remove", REPO], ["prune"], ["ensure", REPO]):
            weights(*verb, *there)
        asked = plane.calls("VolumeGetOrCreate")
        assert {request.environment_name for request in asked} == {"staging"}
        assert not cached.path.exists()
    assert isinstance(run("list", "--environment", "staging").exception, ConfigError)
