"""The variables of the engines that this package starts: what they need, and no keys of others."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

import internvl_modal
from internvl_modal.engines.llamacpp import Engine
from internvl_modal.engines.llamacpp_process import LlamaCppServer
from internvl_modal.engines.lmdeploy import LMDeployOptions
from internvl_modal.engines.server_process import EngineServer
from internvl_modal.errors import ServerUnavailableError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

DEMO = Path(internvl_modal.__file__).parent / "demo"
STRANGE = {
    "MODAL_TOKEN_SECRET": "s1",
    "INTERNVL_MODAL_API_KEY": "s2",
    "HF_TOKEN": "s3",
    "AWS_SECRET_ACCESS_KEY": "s4",
    "OPENAI_API_KEY": "s5",
    "DATABASE_URL": "postgres://u:s6@h/d",
    "HTTPS_PROXY": "http://u:s7@h:1",
    "SOMETHING_OF_MINE": "s8",
}
"""What a user's shell may hold that no engine has a use for."""


def environment_of(pid: int) -> dict[str, str]:
    """Variables that a process was started with, as every process of its user can read them."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
    return dict(entry.split("=", 1) for entry in entries)


def test_llamacpp_gets_the_variables_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**STRANGE, "OMP_NUM_THREADS": "2"}.items():
        monkeypatch.setenv(name, value)
    model, mmproj = (str(DEMO / name) for name in ("demo.gguf", "mmproj-demo.gguf"))
    server = LlamaCppServer(Engine("demo", model, mmproj, 4096, 0))
    try:
        found = environment_of(server.process.pid)
    finally:
        server.process.stop()
    assert found["PATH"] == os.environ["PATH"]
    assert found["OMP_NUM_THREADS"] == "2"
    assert found.keys().isdisjoint(STRANGE)


@pytest.mark.parametrize("script", [True, False], ids=["a Python script", "another program"])
def test_lmdeploy_gets_the_variables_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: bool
) -> None:
    for name, value in {**STRANGE, "CUDA_VISIBLE_DEVICES": "1", "NCCL_DEBUG": "INFO"}.items():
        monkeypatch.setenv(name, value)
    command = tmp_path / "lmdeploy"
    program = "import os\nfor name in os.environ: print('has', name)\n"
    command.write_text(f"#!{sys.executable}\n{program}" if script else "#!/bin/sh\nenv\n")
    command.chmod(0o755)
    options = LMDeployOptions.parse(
        model="m", server_name="127.0.0.1", server_port=_free_port(), api_keys=["k"]
    )
    server = EngineServer(options, executable=str(command))
    with pytest.raises(ServerUnavailableError, match="ended with code 0"):
        server.start(60)
    told = server.tail(200)
    assert "NCCL_DEBUG" in told
    assert "CUDA_VISIBLE_DEVICES" in told
    assert not [name for name in STRANGE if name in told]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
