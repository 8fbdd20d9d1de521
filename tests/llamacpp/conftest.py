"""The bundled llama.cpp, asked as any server is: by its URL, with what it says of itself."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pybase64
import pytest
from PIL import Image, ImageDraw

import internvl_modal as ivl
from internvl_modal.backends.local import LocalBackend
from tests.tiny_model import REAL_TILE, write_tiny_model

MEDIA = "<__media"


@dataclass
class Engine:
    """One engine of llama.cpp, a client that knows no more than its URL, and raw HTTP to it."""

    url: str
    key: str
    model: str
    client: ivl.Client
    raw: httpx.Client

    @classmethod
    def of(cls, backend: LocalBackend) -> Engine:
        endpoint = backend.start()
        key = endpoint.headers["authorization"].removeprefix("Bearer ")
        assert endpoint.model is not None
        return cls(
            endpoint.base_url,
            key,
            endpoint.model,
            ivl.Client(base_url=endpoint.base_url, api_key=key),
            httpx.Client(
                base_url=endpoint.base_url.removesuffix("/v1"),
                headers={"authorization": f"Bearer {key}", "connection": "close"},
                trust_env=False,
                timeout=120,
            ),
        )

    def close(self) -> None:
        self.client.close()
        self.raw.close()

    def post(self, path: str, **document: object) -> Any:
        return self.raw.post(path, json=document).raise_for_status().json()

    def written(self) -> int | None:
        """Tokens of the answer that the engine's only slot writes; None where it is free."""
        (slot,) = self.raw.get("/slots").raise_for_status().json()
        return slot["next_token"][0]["n_decoded"] if slot["is_processing"] else None

    def prompt_tokens(self, messages: list[dict[str, Any]]) -> int:
        """Tokens of what the engine's own template makes of ``messages``, pictures left out.

        Around each picture llama.cpp puts InternVL's two tokens.
        """
        prompt = self.post("/apply-template", messages=messages)["prompt"]
        before, *rest = prompt.split(MEDIA)
        text = before + "".join(f"<img></img>{part.partition('>')[2]}" for part in rest)
        tokens = self.post("/tokenize", content=text, parse_special=True)["tokens"]
        return len(tokens)


def photograph(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(width * 10_007 + height).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def scene(colour: str = "red", width: int = 480, height: int = 480) -> Image.Image:
    picture = Image.new("RGB", (width, height), "white")
    centre, radius = (width // 2, height // 2), min(width, height) // 7
    ImageDraw.Draw(picture).circle(centre, radius, fill=colour)
    return picture


def data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{pybase64.b64encode(file.getvalue()).decode()}"


def message(text: str, *pictures: Image.Image) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def connections(url: str) -> int:
    """Established ones to the server at ``url``, as Linux counts them."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("needs Linux's /proc/net/tcp; run it there")
    port = int(url.removesuffix("/v1").rpartition(":")[2])
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@pytest.fixture(scope="session")
def tiled_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Random weights, and InternVL's own tiles: 448 pixels, 256 tokens."""
    folder = tmp_path_factory.mktemp("tiled")
    return write_tiny_model(folder, name="internvl-tiny", tile=REAL_TILE)


@pytest.fixture(scope="session")
def tiled_engine(tiled_model: tuple[Path, Path]) -> Iterator[Engine]:
    backend = LocalBackend(tiled_model)
    engine = Engine.of(backend)
    yield engine
    engine.close()
    backend.stop()


@pytest.fixture(scope="session")
def demo_engine() -> Iterator[Engine]:
    backend = LocalBackend("demo")
    engine = Engine.of(backend)
    yield engine
    engine.close()
    backend.stop()


@pytest.fixture
def demo() -> Iterator[ivl.Client]:
    """The demo model as a user has it."""
    with ivl.Client("local", model="demo") as client:
        yield client
