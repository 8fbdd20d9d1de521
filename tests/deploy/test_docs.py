"""What the documentation and the examples show of deployments is what happens."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from internvl_modal.client.aio import AsyncClient
from internvl_modal.deployment.options import options_table
from internvl_modal.deployment.served_app import FixedBackend
from internvl_modal.gateway import create_app
from tests.asgi import serving
from tests.deploy.machine import REPOSITORY, Machine
from tests.deploy.workspace import MARKS, log, workspace
from tests.documented import performed
from tests.loopback import Loopback
from tests.modal_plane import Plane

DOCS, EXAMPLES = REPOSITORY / "docs", REPOSITORY / "examples"


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)


def test_the_table_of_options() -> None:
    assert options_table() in (DOCS / "deploy.md").read_text(), "paste options_table() there"


def test_the_gateways_page(loopback: Loopback, tmp_path: Path) -> None:
    Image.new("RGB", (640, 480), "red").save(tmp_path / "photo.jpg")
    client = AsyncClient(
        FixedBackend(loopback.url, "upstream", "internvl2_5-78b", "lmdeploy-0.7.3")
    )
    with serving(create_app(client, api_key="the-key")) as url:
        for block in blocks("gateway.md"):
            exec(block, {"URL": url, "KEY": "the-key"})
    assert len(loopback.chats) == 2


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    models = ("OpenGVLab/InternVL2_5-1B", "OpenGVLab/InternVL2_5-78B")
    with workspace(tmp_path_factory.mktemp("py3"), *models) as running:
        yield running


@pytest.fixture
def machine(plane: Plane, tmp_path: Path) -> Machine:
    machine = Machine(plane, tmp_path / "machine")
    Image.new("RGB", (1200, 800), "red").save(machine.home / "photo.jpg")
    return machine


class TestAgainstTheRuntime:
    pytestmark = MARKS

    def test_the_page(self, machine: Machine) -> None:
        done = machine.command(sys.executable, "-c", "\n".join(blocks("deploy.md")), timeout=280)
        assert done.returncode == 0, done.stderr + log(machine.plane)
        assert done.stdout.count("A picture.") == 2
        assert machine.key not in done.stdout + done.stderr

    def test_from_the_seed(self, machine: Machine) -> None:
        picture = machine.home / "path" / "to" / "your" / "image.jpg"
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (640, 480), "red").save(picture)
        endpoint = machine.plane.host.environment["HF_ENDPOINT"]
        hub = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "", "PYTHONWARNINGS": ""}
        environment = {n: value for n, value in machine.environment.items() if value} | hub
        done = performed("from-the-seed.md", environment, machine.home)
        assert done.returncode == 0, done.stdout + done.stderr + log(machine.plane)
        assert done.stdout.count("A picture.") == 4
        assert "--show-key` prints that of a deployment" in done.stdout

    def test_the_script(self, machine: Machine) -> None:
        script = str(EXAMPLES / "deploy.py")
        done = machine.command(sys.executable, script, "photo.jpg", timeout=280)
        assert done.returncode == 0, done.stderr + log(machine.plane)
        assert done.stdout.endswith("A picture.\n")

    def test_the_notebook(self, machine: Machine) -> None:
        machine.env = {
            "INTERNVL_MODAL_DEPLOY_MODEL": "internvl2_5-1b",
            "PYTHONWARNINGS": "error:::internvl_modal,error:::modal",
            "IPYTHONDIR": str(machine.home / "ipython"),
        }
        code = (
            "import nbformat\n"
            "from nbclient import NotebookClient\n"
            f"notebook = nbformat.read({str(EXAMPLES / 'deploy_from_notebook.ipynb')!r}, 4)\n"
            "NotebookClient(notebook, timeout=280).execute()\n"
            "print(nbformat.writes(notebook))"
        )
        done = machine.command(sys.executable, "-c", code, timeout=290)
        assert done.returncode == 0, done.stderr + log(machine.plane)
        assert "A picture." in done.stdout
        assert "Warning" not in done.stdout
        assert machine.key not in done.stdout
