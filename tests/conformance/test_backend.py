"""Start, readiness, log, stop and restart, with LMDeploy's own command."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.backends.lmdeploy import LMDeployBackend, _free_port
from internvl_modal.engines.server_process import EngineServer
from internvl_modal.errors import ConfigError, ServerUnavailableError
from tests.conformance.environment import NEW, lmdeploy_executable
from tests.conformance.serving import Front
from tests.environments import REPOSITORY


def test_start_is_idempotent_and_a_dead_server_is_started_anew(
    executable: str, model_folder: Path
) -> None:
    backend = LMDeployBackend(model_folder, executable=executable, startup_timeout=120, tp=2)
    with ivl.Client(backend) as client:
        first = backend.start()
        assert backend.start() == first
        assert client.models() == ["internvl2_5-78b"]
        dead = backend._server
        assert dead is not None
        assert dead._process is not None
        os.kill(dead._process.pid, signal.SIGKILL)
        while dead.poll() is None:
            time.sleep(0.05)
        second = backend.start()
        assert backend._server is not dead
        assert client.models() == ["internvl2_5-78b"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{second.base_url}/models")
    backend.stop()


def test_why_it_does_not_start_is_in_the_error(executable: str, model_folder: Path) -> None:
    backend = LMDeployBackend(
        model_folder, executable=executable, startup_timeout=120, chat_template="no-such-template"
    )
    with pytest.raises(ServerUnavailableError, match="'no-such-template' is not registered") as at:
        backend.start()
    assert backend._options.api_keys[0].get_secret_value() not in str(at.value)


def test_a_server_that_is_not_up_in_time_is_ended(executable: str, model_folder: Path) -> None:
    backend = LMDeployBackend(model_folder, executable=executable, startup_timeout=0.5)
    with pytest.raises(ServerUnavailableError, match=r"not ready within 0\.5 s"):
        backend.start()
    assert backend._server is not None
    assert backend._server.poll() is not None


def test_the_examples_of_the_documentation(
    executable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "weights" / "InternVL2_5-8B").mkdir(parents=True)
    Image.new("RGB", (640, 480), "red").save(tmp_path / "photo.jpg")
    (tmp_path / "lmdeploy").symlink_to(executable)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    page = (REPOSITORY / "docs" / "lmdeploy.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    page = page.replace("23456", str(_free_port()))
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    said = capsys.readouterr().out
    assert said.startswith("A picture.\n['internvl']\n")
    assert "quant_policy=8 needs heads 128 wide; those of internvl2_5-1b are 64" in said


def test_restart(executable: str, backend: LMDeployBackend, running: Front) -> None:
    """Beside a server on the port next to it: only its own is touched."""
    options = backend._resolved()
    server = EngineServer(options, executable=executable)
    server.start(timeout=120)
    before = server._process
    server.stop()
    server.start(120)
    assert server._process is not before
    assert server.poll() is None
    assert "Uvicorn running" in server.tail()
    server.stop()
    assert running.client.models() == ["internvl2_5-78b"]


def test_todays_lmdeploy_serves_what_needs_it(enabled: None, tmp_path: Path) -> None:
    """InternVL3.5 gets 0.18 without being told, and is spoken to as such."""
    (tmp_path / "InternVL3_5-8B").mkdir()
    Image.new("RGB", (900, 450), "red").save(tmp_path / "red.png")
    backend = LMDeployBackend(
        tmp_path / "InternVL3_5-8B", executable=str(lmdeploy_executable(NEW)), startup_timeout=120
    )
    with ivl.Client(backend) as client:
        described = client.describe(tmp_path / "red.png", detail="low")
        capabilities = backend.start().capabilities
    assert (described.text, described.seen) == ("A picture.", "confirmed")
    assert capabilities is not None
    assert (capabilities.dialect, capabilities.json_schema) == ("lmdeploy-0.13", True)


@pytest.mark.parametrize(
    ("model", "engine", "said"),
    [
        ("internvl3_5-8b", "lmdeploy-0.7.3", "internvl3_5-8b: LMDeploy 0.7.3 has no reader"),
        ("internvl3_5-8b-fp8-dynamic", "lmdeploy", "FP8"),
        ("internvl3_5-8b", "sglang", "there is no engine 'sglang'"),
    ],
)
def test_what_an_engine_does_not_run_is_refused(model: str, engine: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LMDeployBackend(model, engine=engine)
