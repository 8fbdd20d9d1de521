"""The commands about deployments, and ``serve``, each in a process of its own."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from modal_proto import api_pb2 as p

from tests.deploy.machine import Machine
from tests.loopback import Loopback
from tests.test_cli import SCENE, SENTENCE
from tests.test_gateway import picture

APP = "multimodal-internvl2_5-1b"
COMMAND = (
    sys.executable,
    "-c",
    "from internvl_modal.cli.main import app; app()",
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


@contextmanager
def served(machine: Machine, backend: str, *options: str, key: str = "") -> Iterator[str]:
    """``serve`` on a free port; where it listens and, before that, the key where one was made."""
    machine.env = {
        "INTERNVL_MODAL_API_KEY": "of-the-model",
        "INTERNVL_MODAL_GATEWAY_KEY": key,
        "PYTHONWARNINGS": "",
    }
    command = [*COMMAND, "serve", "--backend", backend, "--port", "0", *options]
    with subprocess.Popen(
        command,
        env={name: value for name, value in machine.environment.items() if value},
        cwd=machine.home,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr
            yield "".join(server.stderr.readline() for _ in range(1 if key else 2))
        finally:
            server.terminate()


@pytest.mark.parametrize("key", ["chosen", ""])
def test_serve(loopback: Loopback, machine: Machine, key: str) -> None:
    with served(machine, loopback.url, key=key) as told:
        key = key or told.partition("\n")[0].removeprefix("key: ")
        url = told.split()[-1]
        with httpx.Client(timeout=60) as http:
            answer, refused = (
                http.post(url, files={"image": picture()}, headers={"Authorization": f"Bearer {k}"})
                for k in (key, "of-the-model")
            )
    assert answer.json()["description"] == "A cat."
    assert loopback.chats[0].headers["authorization"] == "Bearer of-the-model"
    assert refused.status_code == 401
    assert key not in ("", "of-the-model")


def test_serve_what_runs_on_this_machine(machine: Machine) -> None:
    pytest.importorskip("xllamacpp")
    with served(machine, "local", "--model", "demo", key="chosen") as told:
        headers = {"Authorization": "Bearer chosen"}
        files = {"image": Path(SCENE).read_bytes()}
        answer = httpx.post(told.split()[-1], files=files, headers=headers, timeout=120)
    assert answer.json()["description"] == SENTENCE


def test_serve_on_ipv6(loopback: Loopback, machine: Machine) -> None:
    """Where the machine has none, it says so."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        options = ("--backend", loopback.url, "--host", "::1")
        done = machine.command(sys.executable, "-m", "internvl_modal", "serve", *options)
        assert "error: cannot listen on ::1 port 8000: " in done.stderr
        return
    with served(machine, loopback.url, "--host", "::1", key="chosen") as told:
        url = told.split()[-1]
        assert re.fullmatch(r"http://\[::1\]:\d+/", url)
        assert httpx.get(f"{url}health", timeout=60).json() == {"status": "ok"}


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_serve_where_it_cannot_listen(loopback: Loopback, machine: Machine, host: str) -> None:
    taken = loopback.origin.rpartition(":")[2]
    options = ("--backend", loopback.url, "--host", host, "--port", taken)
    done = machine.command(sys.executable, "-m", "internvl_modal", "serve", *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on {host} port {taken}: ")
    assert done.stderr.count("\n") == 1


def test_serve_with_an_impossible_port(loopback: Loopback, machine: Machine) -> None:
    options = ("--backend", loopback.url, "--port", "70000")
    done = machine.command(sys.executable, "-m", "internvl_modal", "serve", *options)
    assert "error: cannot listen on 127.0.0.1 port 70000: " in done.stderr
