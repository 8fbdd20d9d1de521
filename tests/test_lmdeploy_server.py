"""LMDeploy's options: what is refused before anything starts, and the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from internvl_modal.backends.lmdeploy import LMDeployBackend
from internvl_modal.client.resolve import resolve
from internvl_modal.engines.lmdeploy import LMDeployOptions
from internvl_modal.engines.server_process import EngineServer
from internvl_modal.errors import ConfigError, MissingExtraError, ServerUnavailableError
from internvl_modal.settings import Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tp": 0}, "tp=0"),
        ({"tp": 3}, "tp=3 is not a power of two"),
        ({"quant_policy": 16}, "quant_policy=16"),
        ({"cache_max_entry_count": 0}, "cache_max_entry_count=0"),
        ({"cache_max_entry_count": 1}, "cache_max_entry_count=1"),
        ({"max_batch_size": 0}, "max_batch_size=0"),
        ({"vision_max_batch_size": 0}, "vision_max_batch_size=0"),
        ({"session_len": 0}, "session_len=0"),
        ({"server_port": 70000}, "server_port=70000"),
        ({"model_format": "gguf"}, "model_format='gguf'"),
        ({"log_level": "LOUD"}, "log_level='LOUD'"),
        ({"chat_template": ""}, "chat_template=''"),
        ({"model_name": "--tp"}, "model_name='--tp'"),
        ({"model": "--tp"}, "model='--tp'"),
        ({"gpu": 1}, "gpu=1"),
        ({"api_keys": ["a b"]}, "a key is empty or has white space"),
        ({"api_keys": [""]}, "a key is empty or has white space"),
        ({"api_keys": ["a", "-b"]}, "must not begin with a dash"),
        ({"model": "OpenGVLab/InternVL2_5-1B", "tp": 4}, "tp=4 does not divide the 14 heads"),
        ({"model": "/w/InternVL2_5-1B/", "quant_policy": 8}, "heads 128 wide; .* are 64"),
        ({"model": "internvl2_5-8b", "model_format": "awq"}, "internvl2_5-8b is 'hf'"),
        ({"model": "internvl2_5-8b-awq", "model_format": "hf"}, "is 'awq'"),
    ],
)
def test_what_cannot_run_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LMDeployOptions.parse(**{"model": "/weights/1f", **options})  # type: ignore[arg-type]


def test_command_line_with_defaults() -> None:
    assert " ".join(LMDeployOptions(model="/weights/1f").argv()) == (
        "lmdeploy serve api_server /weights/1f --server-name 0.0.0.0 --server-port 23333 "
        "--chat-template internvl2_5 --tp 1 --cache-max-entry-count 0.8 --quant-policy 0 "
        "--vision-max-batch-size 1 --log-level ERROR"
    )


def test_keys_are_in_the_command_line_and_nowhere_else() -> None:
    one = LMDeployOptions(model="m", api_keys=(SecretStr("-s3cret"),))
    two = LMDeployOptions(model="m", api_keys=(SecretStr("s3cret"), SecretStr("other")))
    assert one.argv("/opt/lmdeploy")[0] == "/opt/lmdeploy"
    assert one.argv()[-1] == "--api-keys=-s3cret"
    assert two.argv()[-3:] == ["--api-keys", "s3cret", "other"]
    for options in (one, two):
        assert "s3cret" not in repr(options) + str(options) + options.model_dump_json()
    with pytest.raises(ConfigError) as caught:
        LMDeployOptions.parse(model="m", api_keys=["s3cret", "-other"])
    assert "s3cret" not in str(caught.value)
    assert "other" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "host"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("10.0.0.7", "10.0.0.7")],
)
def test_where_it_is_reached(name: str, host: str) -> None:
    server = EngineServer(LMDeployOptions(model="m", server_name=name))
    assert server.base_url == f"http://{host}:23333/v1"
    assert server.poll() is None
    assert server.tail() == ""
    server.stop()


def test_a_taken_port_is_refused_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = LMDeployOptions(model="m", server_name="127.0.0.1", server_port=port)
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: Address"):
            EngineServer(options, executable="sh").start()


STAND_IN = """
import http.server, json, os, subprocess, sys
port = int(sys.argv[sys.argv.index("--server-port") + 1])
name = sys.argv[sys.argv.index("--model-name") + 1]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": name}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("workers", "a") as file:
    print(os.getpid(), worker.pid, file=file)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_the_workers_of_a_dead_server_are_ended_before_the_next(tmp_path: Path) -> None:
    """The command is a stand-in with a child that outlives it, as LMDeploy's workers may."""
    command = tmp_path / "lmdeploy"
    command.write_text(f"#!{sys.executable}\n{STAND_IN}")
    command.chmod(0o755)
    (tmp_path / "model").mkdir()
    backend = LMDeployBackend(tmp_path / "model", executable=str(command))
    try:
        backend.start()
        main, worker = map(int, Path("workers").read_text().split())
        pipes = _open_files()
        os.kill(main, signal.SIGKILL)
        assert backend._server is not None
        while backend._server.poll() is None:
            time.sleep(0.02)
        assert _lives(worker)
        backend.start()
        deadline = time.monotonic() + 30
        while (_lives(worker) or _open_files() > pipes) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _lives(worker)
        assert _open_files() == pipes
    finally:
        backend.stop()


def test_stop_does_not_wait_for_a_start(tmp_path: Path) -> None:
    command = tmp_path / "lmdeploy"
    command.write_text("#!/bin/sh\necho $$ > pid\nexec sleep 600\n")
    command.chmod(0o755)
    (tmp_path / "model").mkdir()
    backend = LMDeployBackend(tmp_path / "model", executable=str(command), startup_timeout=300)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(backend.start)
        pid = Path("pid")
        while not (
            pid.exists() and pid.read_text() and backend._server and backend._server._process
        ):
            time.sleep(0.02)
        backend.stop()
        with pytest.raises(ServerUnavailableError, match="ended"):
            starting.result(timeout=60)
    assert not _lives(int(pid.read_text()))


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def _lives(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_backend_without_a_model_or_the_command() -> None:
    with pytest.raises(ConfigError, match="'lmdeploy' needs a model"):
        resolve("lmdeploy", Settings.load())
    backend = resolve("lmdeploy", Settings.load(model="internvl2_5-8b"))
    assert repr(backend) == "LMDeployBackend('internvl2_5-8b')"
    backend.stop()
    missing = LMDeployBackend("internvl2_5-8b", executable="no-such-lmdeploy")
    with pytest.raises(MissingExtraError, match=r"internvl-modal\[lmdeploy\]"):
        missing.start()
    with pytest.raises(ConfigError, match="tp=5"):
        LMDeployBackend("internvl2_5-8b", tp=5)


LISTED = """
import json, pathlib, sys
key = sys.argv[-1].rpartition("=")[2]
command = pathlib.Path("/proc/self/cmdline").read_bytes().decode().split("\\0")
pathlib.Path("seen").write_text(json.dumps([key, command]))
"""


@pytest.mark.parametrize("first", [f"#!{sys.executable}\n", None])
def test_the_key_is_in_no_list_of_processes(tmp_path: Path, first: str | None) -> None:
    """Also where pip writes a first line of sh, because the path of Python is a long one."""
    command = tmp_path / "lmdeploy"
    launched = f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n"
    command.write_text((first or launched) + LISTED)
    command.chmod(0o755)
    options = LMDeployOptions.parse(model="m", server_name="127.0.0.1", api_keys=["s3cret"])
    port = options.model_copy(update={"server_port": free_port()})
    with pytest.raises(ServerUnavailableError, match="ended with code 0"):
        EngineServer(port, executable=str(command), engine_args=["--dtype", "float16"]).start(60)
    key, listed = json.loads(Path("seen").read_text())
    assert key == "s3cret"
    assert listed[-3:-1] == ["--dtype", "float16"]
    assert not any("s3cret" in each for each in listed)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tp", "2"], "--tp has a place of its own"),
        (["--api-keys=k"], "--api-keys has a place of its own"),
        (["--gpus", "2"], r"has no --gpus \(one of --adapters"),
        (["2"], "'2' is the value of no option"),
    ],
)
def test_further_options_are_lmdeploys(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        EngineServer(LMDeployOptions(model="m"), engine_args=arguments)
