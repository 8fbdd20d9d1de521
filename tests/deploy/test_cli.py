"""The commands about deployments, and ``serve``, each in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import httpx
import pytest
from modal_proto import api_pb2 as p

from tests.deploy.machine import Machine
from tests.loopback import Loopback
from tests.test_gateway import picture

APP = "multimodal-internvl2_5-1b"
COMMAND = (
    sys.executable,
    "-c",
    "import typer; from internvl_modal.deploy_cli import register; "
    "app = typer.Typer(pretty_exceptions_enable=False); register(app); app()",
)


def run(machine: Machine, *argv: str) -> str:
    done = machine.command(*COMMAND, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_dry_run_prints_what_would_be_made(machine: Machine) -> None:
    text = run(machine, "deploy", "--dry-run", "--gpu", "H200:2", "-o", "max-containers=5")
    assert "H200:2" in text
    assert "at most 5" in text
    assert not machine.plane.recorded


def test_deploy_and_manage(machine: Machine) -> None:
    assert APP in run(machine, "deploy", "internvl2_5-1b", "--no-wait")
    app = machine.plane.deployed(APP)
    assert app
    shown = run(machine, "connect", "internvl2_5-1b")
    assert re.search(r"openai  http://127\.0\.0\.1:\d+/v1\n", shown)
    assert machine.key not in shown
    assert f"key     {machine.key}\n" in run(machine, "connect", "internvl2_5-1b", "--show-key")
    run(machine, "scale", "internvl2_5-1b", "--min", "1", "--max", "3")
    scaling = machine.plane.functions[app.functions["serve"]].scaling
    assert (scaling.min_containers, scaling.max_containers) == (1, 3)
    machine.plane.log(app.app_id, "one\n", p.FILE_DESCRIPTOR_STDERR)
    machine.plane.log(app.app_id, "two\n")
    assert run(machine, "logs", "internvl2_5-1b", "--tail", "1") == "two\n"
    status = json.loads(run(machine, "status", "internvl2_5-1b", "--json"))
    assert status == {"state": "cold", "containers": 0, "running": 0, "waiting": 0}
    run(machine, "stop", "internvl2_5-1b")
    assert not machine.plane.deployed(APP)


@pytest.mark.parametrize(
    ("option", "said"),
    [("max_containers", "NAME=VALUE"), ("gpus=2", "max_containers"), ("api_key=secret", "volume")],
)
def test_options_that_are_none(machine: Machine, option: str, said: str) -> None:
    done = machine.command(*COMMAND, "deploy", "-o", option)
    assert done.returncode == 2
    assert said in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("key", ["chosen", ""])
def test_serve(loopback: Loopback, machine: Machine, key: str) -> None:
    machine.env = {"INTERNVL_MODAL_API_KEY": key, "PYTHONWARNINGS": ""}
    command = [*COMMAND, "serve", "--backend", loopback.url, "--port", "0"]
    with subprocess.Popen(
        command,
        env={name: value for name, value in machine.environment.items() if value},
        cwd=machine.home,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr
            told = [server.stderr.readline() for _ in range(1 if key else 2)]
            key = key or told[0].removeprefix("key: ").strip()
            url = told[-1].split()[-1]
            headers = {"Authorization": f"Bearer {key}"}
            answer = httpx.post(url, files={"image": picture()}, headers=headers)
            refused = httpx.post(url, files={"image": picture()})
        finally:
            server.terminate()
    assert answer.json()["description"] == "A cat."
    assert refused.status_code == 401
