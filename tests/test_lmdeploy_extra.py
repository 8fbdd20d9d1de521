"""The extra ``lmdeploy`` installs an LMDeploy that starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from internvl_modal.backends.lmdeploy import how_to_install
from tests.conformance.environment import OLD, standin
from tests.environments import ensure

ROOT = Path(__file__).parents[1]


def resolve(python: str) -> dict[str, str]:
    """What uv would install beside this package, by name."""
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "compile", "-q", "--no-header", "--no-annotate", "--extra", "lmdeploy"]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run(
        [*command, str(ROOT / "pyproject.toml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split("==", 1) for line in done.stdout.splitlines() if "==" in line)


@pytest.mark.conformance
@pytest.mark.skipif(
    os.environ.get("INTERNVL_MODAL_TEST_CONFORMANCE") != "1",
    reason="asks a package index: set INTERNVL_MODAL_TEST_CONFORMANCE=1",
)
class TestAgainstTheIndex:
    @pytest.mark.parametrize("python", ["3.10", "3.12"])
    def test_it_resolves(self, python: str) -> None:
        found = resolve(python)
        assert found["lmdeploy"] == "0.7.3"
        assert tuple(map(int, found["transformers"].split(".")[:2])) < (4, 52)
        assert found["huggingface-hub"].startswith("0.")
        assert {"partial-json-parser", "timm", "hf-transfer"} <= found.keys()

    def test_a_later_python_gets_none(self) -> None:
        assert "lmdeploy" not in resolve("3.13")

    @pytest.mark.parametrize(
        "code",
        [
            "import runpy; runpy.run_module('lmdeploy', run_name='__main__')",
            "from lmdeploy.vl.model import builder, internvl",
        ],
    )
    def test_it_starts_beside_a_cpu_torch(self, code: str) -> None:
        python = ensure(f"lmdeploy-{OLD}")
        argv = [str(python), "-c", code, "serve", "api_server", "--help"]
        done = subprocess.run(
            argv,
            env={
                **os.environ,
                "PYTHONPATH": str(standin(OLD)),
            },  # for torchvision, which needs CUDA's
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("--cache-max-entry-count" in done.stdout) == ("runpy" in code)


def test_all_holds_every_extra_but_this_one() -> None:
    extras = set(metadata("internvl-modal").get_all("Provides-Extra") or [])
    told = re.search(r'^all = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), flags=re.M)
    assert told
    assert Requirement(told[1]).extras == extras - {"all", "lmdeploy"}


def test_where_no_lmdeploy_can_be_installed() -> None:
    assert how_to_install((3, 12)) == "pip install 'internvl-modal[lmdeploy]'"
    told = how_to_install((3, 14))
    assert "needs a Python below 3.13, and this is 3.14" in told
    for engine in ("lmdeploy", "vllm"):
        assert "environment of its own" in how_to_install(engine=engine)
    here = how_to_install()
    assert ("below" in here) == (sys.version_info >= (3, 13))
