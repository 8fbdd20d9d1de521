"""Deployed functions in Modal's own container runtime; LMDeploy is all real but its CUDA engine."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.deploy.machine import Machine
from tests.deploy.workspace import MARKS, deployed, log, workspace
from tests.loopback import completion
from tests.modal_plane import Plane
from tests.modal_plane.edge import PROXY_TOKEN

pytestmark = MARKS
REPO = "OpenGVLab/InternVL2_5-1B"
APP = "multimodal-internvl2_5-1b"
PROXY_VARIABLES = ("INTERNVL_MODAL_MODAL_KEY", "INTERNVL_MODAL_MODAL_SECRET")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with workspace(tmp_path_factory.mktemp("py3"), REPO) as running:
        yield running


@pytest.fixture(scope="module")
def machine(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return deployed(plane, tmp_path_factory.mktemp("deployer"))


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


def test_a_photograph_of_a_phone(machine: Machine) -> None:
    """Those of iPhones are HEIC, which the image's Pillow cannot read by itself."""
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (900, 450), "red")).save(file)
    url = machine.python(f"say(connect({APP!r}).urls['rest'])")
    headers = {"Authorization": f"Bearer {key_of(machine, APP)}"}
    answer = httpx.post(url, files={"image": file.getvalue()}, headers=headers, timeout=120)
    assert answer.json()["description"] == "A picture."


def test_the_rest_endpoint(machine: Machine) -> None:
    url = machine.python(f"say(connect({APP!r}).urls['rest'])")
    body = {"image_data": base64.b64encode(picture()).decode()}
    with httpx.Client(timeout=120) as http:
        refused = http.post(url, json=body)
        answer = http.post(
            url, json=body, headers={"Authorization": f"Bearer {key_of(machine, APP)}"}
        )
        page = [http.get(f"{url}{name}") for name in ("", "page/page.js", "page/page.css")]
    assert all(one.status_code == 200 and one.text for one in page)
    assert refused.status_code == 401
    assert answer.json()["description"] == "A picture."


SLOWLY = """
import httpx
d = connect(APP)
url = d.urls["openai"].removesuffix("/v1") + "/_standin/next"
httpx.post(url, json={"text": "Slowly.", "token_seconds": 0.2}, timeout=120)
with d.client() as client:
"""


def test_a_stream_comes_in_pieces(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture())
    path = str(tmp_path / "red.png")
    pieces = machine.python(f"APP = {APP!r}{SLOWLY}    say(list(client.stream({path!r})))")
    assert len(pieces) > 1
    assert "".join(pieces) == "Slowly."


def test_a_redirect_while_it_takes_long(
    machine: Machine, plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane, "patience", 0.4)
    (tmp_path / "red.png").write_bytes(picture())
    path = str(tmp_path / "red.png")
    text = machine.python(f"APP = {APP!r}{SLOWLY}    say(client.describe({path!r}).text)")
    assert text == "Slowly."


# The two samples of the README that users of the older app copied, but for URL and key.
REST_SAMPLE = """
import requests
import base64

# Encode the image
with open("path/to/your/image.jpg", "rb") as image_file:
    image_data = base64.b64encode(image_file.read()).decode('utf-8')

# Send the request
response = requests.post(
    "URL",
    json={"image_data": image_data}
)

# Print the result
print(response.json()["description"])
"""
OPENAI_SAMPLE = """
from openai import OpenAI

client = OpenAI(api_key='KEY', base_url='URL')

# Get the available model name
model_name = client.models.list().data[0].id

# Create a chat completion request with an image
response = client.chat.completions.create(
    model=model_name,
    messages=[{
        'role': 'user',
        'content': [{
            'type': 'text',
            'text': 'describe this image in detail',
        }, {
            'type': 'image_url',
            'image_url': {
                'url': 'https://path/to/your/image.jpg',
            },
        }],
    }],
    temperature=0.7,
    top_p=0.9)

# Print the response
print(response.choices[0].message.content)
"""


def test_the_older_rest_sample(machine: Machine, tmp_path: Path) -> None:
    """The key comes from ``~/.netrc``, where ``requests`` looks for it by itself."""
    folder = machine.home / "path" / "to" / "your"
    folder.mkdir(parents=True)
    Image.new("RGB", (640, 480), "red").save(folder / "image.jpg")
    netrc = machine.home / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login any password {key_of(machine, APP)}\n")
    netrc.chmod(0o600)
    url = machine.python(f"say(connect({APP!r}).urls['rest'])")
    done = machine.command(sys.executable, "-c", REST_SAMPLE.replace("URL", url))
    assert done.stdout == "A picture.\n", done.stderr


@pytest.mark.parametrize("url", ["d.urls['openai']", "d.urls['rest'] + 'v1'"])
def test_the_older_openai_sample(machine: Machine, url: str) -> None:
    """Against LMDeploy itself, and against the gateway in front of it."""
    url = machine.python(f"d = connect({APP!r})\nsay({url})")
    image = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    code = OPENAI_SAMPLE.replace("https://path/to/your/image.jpg", image)
    code = code.replace("'URL'", repr(url)).replace("'KEY'", repr(key_of(machine, APP)))
    done = machine.command(sys.executable, "-c", code)
    assert done.stdout == "A picture.\n", done.stderr


def test_killing_lmdeploy_ends_the_container(machine: Machine, plane: Plane) -> None:
    app = plane.deployed(APP)
    assert app
    container = plane.containers[app.functions["serve"]]
    (victim,) = [
        pid
        for pid in below(container.process.pid)
        if "serve api_server" in argv(pid) and "launcher.py" not in argv(pid)
    ]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: plane.containers.get(app.functions["serve"]) is not container)
    assert container.process.returncode
    assert "lmdeploy ended with code -9; its last lines:" in log(plane)
    status = machine.python(
        f"d = connect({APP!r})\nwith d.client() as c:\n    c.models()\nsay(d.status().state)"
    )
    assert status == "ready", "the next request starts another"


def test_the_key_is_in_no_list_of_processes(machine: Machine, plane: Plane) -> None:
    """Of the container's processes, LMDeploy's among them."""
    app = plane.deployed(APP)
    assert app
    lists = [argv(pid) for pid in below(plane.containers[app.functions["serve"]].process.pid)]
    assert any("serve api_server" in each for each in lists)
    assert not [each for each in lists if key_of(machine, APP) in each]


HANG = """
import httpx
d = connect(APP)
url = d.urls["openai"].removesuffix("/v1") + "/_standin/next"
httpx.post(url, json={"text": "Never.", "token_seconds": 600, "times": 3}, timeout=120)
with d.client(retry=ivl.Retry(attempts=1)) as client:
    attempt(lambda: client.describe(PATH))
"""


def test_a_server_that_hangs_ends_the_container(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    """The picture is taken and nothing comes back; neither does the one token asked for."""
    (tmp_path / "red.png").write_bytes(picture())
    machine.python('say(repr(deploy("internvl2_5-1b", name="hangs", liveness=5)))', timeout=250)
    container = plane.containers[served(plane, "hangs")]
    code = HANG.replace("APP", "'hangs'").replace("PATH", repr(str(tmp_path / "red.png")))
    error = machine.python(code)
    assert error[0] in ("EngineError", "ServerUnavailableError")
    wait_until(lambda: container.process.returncode is not None)
    assert "lmdeploy hangs: nothing has come back for" in log(plane)
    assert machine.python("with connect('hangs').client() as c:\n    say(c.models())"), "another"
    machine.python("connect('hangs').stop()\nsay(1)")


def test_the_log_tells_how_far_a_start_is(plane: Plane) -> None:
    app = plane.deployed(APP)
    assert app
    mark = f"internvl-modal {app.tags['version']}: "
    told = [line.data for line in app.logs if line.data.startswith(mark)]
    phases = [line.removeprefix(mark).partition(";")[0].strip() for line in told]
    assert phases[0] == "checking the weights"
    assert phases[1].startswith("loading the weights on ")
    assert phases[2] == "warming up"
    assert re.search(rf"runs the Python code of {REPO} at commit [0-9a-f]{{40}}\n", told[1])


DRIVER = """#!/bin/sh
echo NVIDIA A10G, 23028
echo NVIDIA A10G, 23028
"""
"""What stands for NVIDIA's tool on a machine of two GPUs."""


def test_what_the_container_finds_decides_how_it_starts(
    machine: Machine, plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one L40S or two A10, it is on the two."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(DRIVER)
    tool.chmod(0o755)
    assert plane.host
    monkeypatch.setitem(plane.host.binds, "/opt/driver", tmp_path)
    monkeypatch.setitem(plane.host.environment, "PATH", "/opt/driver:/usr/bin:/bin")
    machine.python(
        'say(repr(deploy("internvl2_5-1b", name="either", gpu=["L40S", "A10:2"])))', timeout=250
    )
    serve = served(plane, "either")
    assert plane.functions[serve].gpus == ["L40S", "A10"]
    (command,) = [
        line
        for pid in below(plane.containers[serve].process.pid)
        if "serve api_server" in (line := argv(pid)) and "launcher.py" not in line
    ]
    assert " --tp 2 " in command
    assert "loading the weights on A10:2" in log(plane)
    found = machine.python("d = connect('either')\nsay([d.options.gpu, d.plan.gpu_string])")
    assert found == ["L40S,A10:2", found[1]]
    machine.python("connect('either').stop()\nsay(1)")


DEAD = """#!/bin/sh
echo CUDA out of memory
exit 3
"""
BLIND = f"""#!{sys.executable}
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer('{{"data": [{{"id": "internvl2_5-1b"}}]}}')
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({json.dumps(completion(prompt_tokens=20))!r})
    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text.encode())
port = int(sys.argv[sys.argv.index("--server-port") + 1])
http.server.HTTPServer(("0.0.0.0", port), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    ("lmdeploy", "said"), [(DEAD, "CUDA out of memory"), (BLIND, "did not see the picture")]
)
def test_a_server_that_cannot_answer_fails_the_deploy(
    machine: Machine,
    plane: Plane,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lmdeploy: str,
    said: str,
) -> None:
    replace_lmdeploy(plane, monkeypatch, tmp_path, lmdeploy)
    name, message, hint = machine.python('attempt(lambda: deploy("internvl2_5-1b", name="broken"))')
    assert (name, "internvl-modal logs broken" in hint) == ("DeployError", True)
    assert said in message


def test_weights_that_are_not_whole_are_not_served(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", name="bare", volume="bare", wait=False)))')
    error = machine.python(
        "from internvl_modal import Retry\n"
        "with connect('bare').client(retry=Retry(attempts=1)) as client:\n"
        "    attempt(client.models)"
    )
    assert error[0] == "EngineError"
    assert "is not complete in" in log(plane)


def test_weights_that_cannot_be_had_leave_the_old_deployment(
    machine: Machine, plane: Plane
) -> None:
    before = plane.function(APP, "serve")
    name, message, _ = machine.python(f'attempt(lambda: deploy("internvl2_5-2b", name={APP!r}))')
    assert name == "WeightsError"
    assert "OpenGVLab/InternVL2_5-2B" in message
    assert plane.function(APP, "serve") == before
    assert machine.python(f"with connect({APP!r}).client() as c:\n    say(c.models())") == [
        "internvl2_5-1b"
    ]


def test_deploy_returns_when_its_own_version_answers(machine: Machine, plane: Plane) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", name="updated")))')
    serve = served(plane, "updated")
    old = plane.containers[serve]
    machine.python('say(repr(deploy("internvl2_5-1b", name="updated", gpu="H100")))')
    new = plane.containers[serve]
    assert new is not old
    assert new.definition.resources.gpu_config.gpu_type == "H100"


def test_a_new_key_while_a_container_with_the_old_one_runs(machine: Machine, plane: Plane) -> None:
    assert plane.containers[served(plane, "updated")]
    old = key_of(machine, "updated")
    machine.python('say(repr(deploy("internvl2_5-1b", name="updated", gpu="H100", api_key="new")))')
    models = machine.python("with connect('updated').client() as c:\n    say(c.models())")
    assert models == ["internvl2_5-1b"]
    refused = machine.python(f"attempt(connect('updated', api_key={old!r}).client().models)")
    assert refused[0] == "AuthenticationError"


def test_a_version_that_cannot_start_gives_way_to_the_one_before(
    machine: Machine, plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = plane.deployed("updated")
    assert app
    plane.run(plane.stop_containers(app.app_id))  # as after a pause
    with monkeypatch.context() as patched:
        replace_lmdeploy(plane, patched, tmp_path, DEAD)
        name, message, _ = machine.python(
            'attempt(lambda: deploy("internvl2_5-1b", name="updated", gpu="H200"))'
        )
    assert name == "DeployError"
    assert "CUDA out of memory" in message
    assert "what was deployed before (H100) is deployed again" in message
    models, gpu = machine.python(
        "d = connect('updated')\nwith d.client() as c:\n    say([c.models(), d.plan.gpu_string])"
    )
    assert (models, gpu) == (["internvl2_5-1b"], "H100")
    container = plane.containers[served(plane, "updated")]
    assert container.definition.resources.gpu_config.gpu_type == "H100"


def test_behind_modals_proxy_auth(machine: Machine, plane: Plane) -> None:
    machine.env = dict(zip(PROXY_VARIABLES, PROXY_TOKEN, strict=True))
    urls = machine.python(
        'say(dict(deploy("internvl2_5-1b", name="closed", proxy_auth=True).urls))'
    )
    headers = {"Authorization": f"Bearer {key_of(machine, 'closed')}"}
    body = {"image_data": base64.b64encode(picture()).decode()}
    assert httpx.post(urls["rest"], json=body, headers=headers, timeout=120).status_code == 401
    headers |= {"Modal-Key": PROXY_TOKEN[0], "Modal-Secret": PROXY_TOKEN[1]}
    answer = httpx.post(urls["rest"], json=body, headers=headers, timeout=120)
    assert answer.json()["description"] == "A picture."


def test_no_key_and_no_signed_address_in_any_log(machine: Machine, plane: Plane) -> None:
    keys = [json.loads(path.read_text())["api_key"] for path in machine.home.rglob("*.json")]
    assert keys
    assert not [key for key in keys if key in log(plane)]
    assert "HTTP Request" not in log(plane)


def test_no_container_outlives_the_plane(machine: Machine, plane: Plane) -> None:
    pids = [pid for c in plane.containers.values() for pid in below(c.process.pid)]
    assert pids
    plane.run(plane.stop_containers())
    wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])


def replace_lmdeploy(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, folder: Path, script: str
) -> None:
    """Let new containers find another LMDeploy."""
    broken = folder / "bin" / "lmdeploy"
    broken.parent.mkdir()
    broken.write_text(script)
    broken.chmod(0o755)
    assert plane.host
    monkeypatch.setitem(plane.host.binds, "/opt/py3", folder)


def served(plane: Plane, name: str) -> str:
    """The id of an app's ``serve``."""
    app = plane.deployed(name)
    assert app
    return app.functions["serve"]


def key_of(machine: Machine, name: str) -> str:
    (file,) = machine.home.rglob(f"{name}.json")
    key: str = json.loads(file.read_text())["api_key"]
    return key


def below(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return [pid, *(grandchild for child in found for grandchild in below(child))]


def argv(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass within 30 s")
