"""Deployed functions in Modal's own container runtime; LMDeploy is all real but its CUDA engine."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.conformance.environment import lmdeploy_executable
from tests.loopback_hub import LoopbackHub
from tests.modal_client import Machine
from tests.modal_plane import Host, Plane

ENABLED = os.environ.get("INTERNVL_MODAL_TEST_CONTAINER") == "1"
pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif(
        not ENABLED or os.geteuid() != 0,
        reason="needs root and LMDeploy's environment: set INTERNVL_MODAL_TEST_CONTAINER=1",
    ),
]
REPO = "OpenGVLab/InternVL2_5-1B"
APP = "multimodal-internvl2_5-1b"


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    """The Hub with a model of the right shape and the wrong weights."""
    with LoopbackHub() as running:
        running.commit(
            REPO,
            {
                "config.json": b'{"model_type": "internvl_chat"}',
                "tokenizer_config.json": b"{}",
                "model.safetensors": os.urandom(3_000_000),
            },
        )
        yield running


@pytest.fixture(scope="module")
def plane(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A plane whose containers find LMDeploy where its image has it."""
    image = tmp_path_factory.mktemp("py3")
    (image / "bin").mkdir()
    command = image / "bin" / "lmdeploy"
    command.write_text(f'#!/bin/sh\nexec {lmdeploy_executable()} "$@"\n')
    command.chmod(0o755)
    with Plane() as running:
        running.host = Host({"/opt/py3": image}, {"HF_ENDPOINT": hub.url})
        yield running


@pytest.fixture(scope="module")
def machine(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine from which the model was deployed, weights and all."""
    deployer = Machine(plane, tmp_path_factory.mktemp("deployer"))
    code = "from internvl_modal.deploy import deploy; print(deploy('internvl2_5-1b'))"
    done = deployer.command(sys.executable, "-c", code, timeout=280)
    assert done.returncode == 0, done.stderr + log(plane)
    assert f"{REPO} is on the Volume" in done.stderr
    return deployer


def log(plane: Plane) -> str:
    return "".join(line.data for app in plane.apps.values() for line in app.logs)


def picture(width: int = 900, height: int = 450) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def test_describe_from_another_process(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture())
    text, seen, model = machine.python(
        f"with connect({APP!r}).client() as client:\n"
        f"    d = client.describe({str(tmp_path / 'red.png')!r})\n"
        "say([d.text, d.seen, d.model])"
    )
    assert (text, seen, model) == ("A picture.", "confirmed", "internvl2_5-1b")


def test_the_rest_endpoint(machine: Machine) -> None:
    url = machine.python(f"say(connect({APP!r}).urls['rest'])")
    body = {"image_data": base64.b64encode(picture()).decode()}
    with httpx.Client(timeout=120) as http:
        refused = http.post(url, json=body)
        answer = http.post(url, json=body, headers={"Authorization": f"Bearer {machine.key}"})
    assert refused.status_code == 401
    assert answer.json()["description"] == "A picture."
