"""vLLM's own server, started once for the tests that need it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from tests.vllm.server import Server, serving

ENABLED = "INTERNVL_MODAL_TEST_VLLM"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the environment; installing it may take minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def enabled() -> None:
    """Skips where the suite was not asked for."""
    if os.environ.get(ENABLED) != "1":
        pytest.skip(f"needs vLLM for the CPU (2.5 GB installed once); set {ENABLED}=1")


@pytest.fixture(scope="package")
def vllm(enabled: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with the settings that people leave alone."""
    with serving(tmp_path_factory.mktemp("vllm")) as server:
        yield server


@pytest.fixture(scope="module")
def trusting(enabled: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets each request choose its tiles, and wants a key.

    It takes pictures of up to 32 tiles, as vLLM does by itself where it has a large GPU.
    """
    options = ("--trust-request-mm-kwargs", "--max-num-batched-tokens", "8192")
    with serving(tmp_path_factory.mktemp("trusting"), *options, key="the key") as server:
        yield server


@pytest.fixture(scope="package")
def client(vllm: Server) -> Iterator[ivl.Client]:
    """A client that is told where the server is, and nothing else."""
    with ivl.Client(base_url=vllm.url, retry=ivl.Retry(attempts=1)) as client:
        yield client
