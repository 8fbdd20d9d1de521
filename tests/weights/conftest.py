"""A Hub with one small model, and a cache that asks it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_modal.weights import WeightsCache
from tests.loopback_hub import LoopbackHub

REPO = "OpenGVLab/InternVL2_5-1B"


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def model_files() -> dict[str, bytes]:
    """What a repository holds: what serving needs, and what it does not."""
    return {
        "config.json": b'{"model_type": "internvl_chat"}',
        "tokenizer.json": noise(5000, 1),
        "modeling_internvl_chat.py": b"class InternVLChatModel: ...\n",
        "model.safetensors.index.json": b'{"weight_map": {}}',
        "model-00001-of-00002.safetensors": noise(400_000, 2),
        "model-00002-of-00002.safetensors": noise(300_000, 3),
        "model.safetensors": noise(2000, 4),
        "consolidated.safetensors": noise(2000, 5),
        "pytorch_model.bin": noise(2000, 6),
        "model.pt": noise(2000, 7),
        "README.md": b"# InternVL\n",
        "examples/image1.jpg": noise(2000, 8),
    }


NEEDED = (
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "modeling_internvl_chat.py",
    "tokenizer.json",
)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        server.commit(REPO, model_files())
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def cache(hub: LoopbackHub, root: Path) -> WeightsCache:
    return WeightsCache(root, endpoint=hub.url)
