"""``vllm serve`` with the tiny model: the real engine on this machine's processor."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image

from tests.environments import ensure
from tests.vllm.tiny_model import CONTEXT, make

HERE = Path(__file__).parent
MODEL = "internvl2_5-1b"
START_SECONDS = 240
IDLE_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A running ``vllm serve``."""

    url: str
    """Up to and including ``/v1``."""
    key: str | None = None

    def post(self, **fields: object) -> httpx.Response:
        """A chat completion request as it is, without our client."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        document = {"model": MODEL, "temperature": 0, "max_tokens": 1, **fields}
        url = f"{self.url}/chat/completions"
        return httpx.post(url, json=document, headers=headers, timeout=60)

    def metric(self, name: str) -> float:
        """The sum of one of the server's own counts, such as ``num_requests_running``."""
        root = self.url.removesuffix("/v1")
        lines = httpx.get(f"{root}/metrics", timeout=60).text.splitlines()
        found = [line for line in lines if line.startswith(f"vllm:{name}{{")]
        assert found, name
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def busy(self) -> bool:
        """Whether the server works on something."""
        return bool(self.metric("num_requests_running") or self.metric("num_requests_waiting"))

    def idle(self) -> float:
        """Wait until the server works on nothing; the tokens that it has written so far."""
        until = time.monotonic() + IDLE_SECONDS
        while self.busy():
            assert time.monotonic() < until, "the server goes on working"
            time.sleep(0.1)
        return self.metric("generation_tokens_total")


def content(image: Image.Image, text: str) -> list[dict[str, object]]:
    """A message with ``image`` as it is, as a plain request has it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]


@contextmanager
def serving(folder: Path, *options: str, key: str | None = None) -> Iterator[Server]:
    """Start a server in ``folder`` with ``options`` besides; stop it at the end."""
    python = ensure("vllm")
    make(folder / "model")
    port = _free_port()
    command = [
        *(str(python.with_name("vllm")), "serve", str(folder / "model")),
        *("--served-model-name", MODEL, "--load-format", "dummy", "--trust-remote-code"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(CONTEXT), "--max-num-seqs", "32", "--enforce-eager"),
        *("--mm-processor-cache-gb", "0.2", *options),
    ]
    environment = _environment(folder, python.parents[2] / "cache")
    if key:
        environment["VLLM_API_KEY"] = key
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(process, port, folder / "log")
            yield Server(f"http://127.0.0.1:{port}/v1", key)
        finally:
            _stop(process)


def _environment(folder: Path, cache: Path) -> dict[str, str]:
    """Offline, one thread, a gigabyte for keys and values, and nothing of the developer's."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(HERE / "standin"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CACHE_ROOT": str(cache),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        said = log.read_text(errors="replace")[-4000:]
        assert process.poll() is None, f"vllm serve ended:\n{said}"
        assert time.monotonic() < until, f"vllm serve is not ready:\n{said}"
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with its engine and its worker."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
