"""Clients that nobody here wrote, against the gateway in front of the bundled model."""

from __future__ import annotations

import base64
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.sync import Client
from internvl_modal.gateway import create_app
from tests.asgi import serving
from tests.conformance.environment import OLD
from tests.environments import ensure
from tests.loopback import Loopback, Reply, models_list
from tests.test_gateway import PICTURE

ENABLED = "INTERNVL_MODAL_TEST_CLIENTS"
HERE = Path(__file__).parent
KEY = "gateway-test-key"

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        os.environ.get(ENABLED) != "1",
        reason=f"needs packages of others (1 GB installed once): set {ENABLED}=1",
    ),
]


@pytest.fixture(scope="module")
def asked() -> Iterator[dict[str, str]]:
    """Where the gateway is, for the programs."""
    scene = Image.new("RGB", (480, 480), "white")
    ImageDraw.Draw(scene).ellipse((170, 170, 310, 310), fill="red")
    file = io.BytesIO()
    scene.save(file, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    with serving(create_app(AsyncClient("local", model="demo"), api_key=KEY)) as url:
        with Client(base_url=f"{url}/v1", api_key=KEY) as client:
            (model,) = client.models()
        names = {"URL": url, "KEY": KEY, "MODEL": model, "IMAGE": image}
        yield {f"GATEWAY_{name}": value for name, value in names.items()}


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python that has the clients."""
    return ensure("gateway-clients")


def run(*command: str | Path, asked: dict[str, str], **more: str) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        list(map(str, command)),
        env={**kept, **asked, **more, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@pytest.mark.parametrize(
    "client", ["openai", "instructor", "litellm", "langchain", "pydantic_ai", "dspy"]
)
def test_a_client(python: Path, asked: dict[str, str], client: str) -> None:
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    run(python, HERE / f"{client}_client.py", asked=asked, **quiet)


def test_lmdeploys_own_client(asked: dict[str, str]) -> None:
    run(ensure(f"lmdeploy-{OLD}"), HERE / "lmdeploy_client.py", asked=asked)


def test_schemathesis_finds_nothing(
    python: Path, asked: dict[str, str], loopback: Loopback
) -> None:
    """In front of a server that takes everything: an engine refuses what no schema can name."""
    loopback.models = Reply(body=models_list("somebody", "internvl2_5-8b"))
    client = AsyncClient(loopback.url)
    with serving(create_app(client, api_key=KEY)) as url:
        small = {"GATEWAY_URL": url, "GATEWAY_IMAGE": f"data:image/png;base64,{PICTURE}"}
        _schemathesis(python, asked | small)


def _schemathesis(python: Path, asked: dict[str, str]) -> None:
    run(
        *(python.with_name("schemathesis"), "run", f"{asked['GATEWAY_URL']}/openapi.json"),
        *("--header", f"Authorization: Bearer {KEY}", "--seed", "1", "--no-color"),
        *("--max-examples", "10", "--phases", "coverage,fuzzing", "--suppress-health-check", "all"),
        asked=asked,
        SCHEMATHESIS_HOOKS="schemathesis_hooks",
    )
