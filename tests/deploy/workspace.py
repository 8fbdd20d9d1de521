"""A Modal workspace on loopback with everything a deployment meets: containers, a Hub, LMDeploy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.environment import lmdeploy_executable
from tests.deploy.machine import Machine
from tests.loopback_hub import LoopbackHub
from tests.modal_plane import Host, Plane

ENABLED = os.environ.get("INTERNVL_MODAL_TEST_CONTAINER") == "1" and os.geteuid() == 0
MARKS = [
    pytest.mark.container,
    pytest.mark.skipif(
        not ENABLED,
        reason="needs root and LMDeploy's environment: set INTERNVL_MODAL_TEST_CONTAINER=1",
    ),
]


@contextmanager
def workspace(folder: Path, *models: str) -> Iterator[Plane]:
    """A plane whose containers find these models on the Hub, and LMDeploy in its place."""
    (folder / "bin").mkdir()
    command = folder / "bin" / "lmdeploy"
    command.write_text(lmdeploy_executable().read_text())
    command.chmod(0o755)
    with LoopbackHub() as hub, Plane() as plane:
        for model in models:
            files = {"config.json": b'{"model_type": "internvl_chat"}', "tokenizer.json": b"{}"}
            hub.commit(model, {**files, "model.safetensors": os.urandom(3_000_000)})
        plane.host = Host({"/opt/py3": folder}, {"HF_ENDPOINT": hub.url})
        yield plane


def deployed(plane: Plane, home: Path) -> Machine:
    """A machine from which the smallest model was deployed, weights and all."""
    machine = Machine(plane, home)
    code = "from internvl_modal.deployment.api import deploy; print(deploy('internvl2_5-1b'))"
    done = machine.command(sys.executable, "-c", code, timeout=280)
    assert done.returncode == 0, done.stderr + log(plane)
    assert re.search(r"OpenGVLab/InternVL2_5-1B: \d/3 files, .* MB/s", done.stderr)
    assert "OpenGVLab/InternVL2_5-1B is on the Volume" in done.stderr
    return machine


def log(plane: Plane) -> str:
    """All that was logged in the workspace."""
    return "".join(line.data for app in plane.apps.values() for line in app.logs)
