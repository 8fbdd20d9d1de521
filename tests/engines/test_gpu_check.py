"""The check for a GPU, as far as it runs without one: the models that it makes are the planner's."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.environments import REPOSITORY, ensure

ENABLED = "INTERNVL_MODAL_TEST_CONFORMANCE"
RUN = """
import runpy, sys, torch
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.argv = ["check", *sys.argv[1:]]
runpy.run_module("tools.gpu_check.check", run_name="__main__", alter_sys=True)
"""
"""torchvision's wheel is for CUDA's torch; its Python part needs to know of two operators."""

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(
        os.environ.get(ENABLED) != "1",
        reason=f"needs torch and transformers, of LMDeploy's environment; set {ENABLED}=1",
    ),
]


def figures(*arguments: str) -> list[dict[str, Any]]:
    python = ensure("lmdeploy-0.18.0")
    done = subprocess.run(
        [str(python), "-c", RUN, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_model_has_the_parameters_that_the_planner_counts() -> None:
    found = figures("--count")
    assert len(found) >= 50
    for figure in found:
        assert figure["made"] == figure["planned"], figure["model"]


def test_all_steps_with_a_short_model() -> None:
    found = figures("internvl3-1b", "--device", "cpu", "--layers", "1", "--tiles", "1")
    told = {figure["what"]: figure for figure in found}
    assert set(told) == {"vision weights", "vision, 1 tiles", "llm weights", "KV, 64 tokens"}
    for what in ("vision weights", "llm weights", "KV, 64 tokens"):
        assert told[what]["made"] == told[what]["planned"], what
    assert told["vision, 1 tiles"]["tiles a second"] > 0
