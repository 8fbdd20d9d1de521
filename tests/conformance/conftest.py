"""LMDeploy's own front end, started once for the tests that need it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

import internvl_modal as ivl
from internvl_modal.backends.lmdeploy import LMDeployBackend
from tests.conformance.environment import lmdeploy_executable

ENABLED = "INTERNVL_MODAL_TEST_CONFORMANCE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the environment."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.conformance)


@pytest.fixture(scope="session")
def executable() -> str:
    """The stand-in for the ``lmdeploy`` command."""
    if os.environ.get(ENABLED) != "1":
        pytest.skip(f"needs LMDeploy's front end (2 GB installed once); set {ENABLED}=1")
    return str(lmdeploy_executable())


@dataclass(frozen=True)
class SeenImage:
    """One picture as it reached the generator."""

    size: tuple[int, int]
    """Pixels, as LMDeploy's loader read it."""
    tiles: NDArray[np.uint8]
    """(tiles, 16, 16, 3): the mean colours of each tile's 28x28 patches; the last of several is
    the thumbnail of the whole picture."""

    @property
    def grid(self) -> NDArray[np.uint8]:
        """The whole picture in 16x16 colours."""
        whole: NDArray[np.uint8] = self.tiles[-1]
        return whole


@dataclass(frozen=True)
class Seen:
    """One request as it reached the generator."""

    prompt: str
    """After the chat template."""
    prompt_tokens: int
    sampling: dict[str, object]
    images: list[SeenImage] = field(repr=False)


@dataclass
class Front:
    """A running LMDeploy front end and what its stand-in for the engine knows."""

    backend: LMDeployBackend
    url: str
    key: str
    model: str
    client: ivl.Client

    @classmethod
    def of(cls, backend: LMDeployBackend, client: ivl.Client) -> Front:
        """The server that ``backend`` runs."""
        endpoint = backend.start()
        key = endpoint.headers["authorization"].removeprefix("Bearer ")
        assert endpoint.model is not None
        return cls(backend, endpoint.base_url, key, endpoint.model, client)

    def seen(self) -> Seen:
        """The only request since this was last asked."""
        (report,) = self.reports()
        images = [
            SeenImage(
                tuple(image["size"]),
                np.array(image["tiles"], np.uint8).reshape(-1, 16, 16, 3),
            )
            for image in report.pop("images")
        ]
        return Seen(images=images, **report)

    def next(self, **behaviour: object) -> None:
        """Say how the next request is answered; see ``Behaviour`` of the stand-in."""
        httpx.post(f"{self._root}/_standin/next", json=behaviour, timeout=60).raise_for_status()

    def post(self, document: object, **headers: str) -> httpx.Response:
        """A chat completion request as it is, without our client."""
        headers = {"authorization": f"Bearer {self.key}"} | headers
        url = f"{self.url}/chat/completions"
        return httpx.post(url, json=document, headers=headers, timeout=60)

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")

    def reports(self) -> list[dict[str, Any]]:
        """The requests since this was last asked, oldest first."""
        reports = httpx.get(f"{self._root}/_standin/seen", timeout=60).raise_for_status().json()
        assert isinstance(reports, list)
        return reports


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for a folder of weights; the stand-in looks at its name only."""
    folder = tmp_path_factory.mktemp("weights") / "InternVL2_5-78B"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def running(executable: str, model_folder: Path) -> Iterator[Front]:
    """The server, with LMDeploy's documented session length for documents."""
    backend = LMDeployBackend(
        model_folder,
        executable=executable,
        startup_timeout=120,
        tp=4,
        session_len=8192,
        max_batch_size=8,
    )
    try:
        endpoint = backend.start()
        # A client that is told where the server is, and nothing else.
        with ivl.Client(
            base_url=endpoint.base_url,
            api_key=endpoint.headers["authorization"].removeprefix("Bearer "),
            retry=ivl.Retry(attempts=1),
        ) as client:
            yield Front.of(backend, client)
    finally:
        backend.stop()


@pytest.fixture
def lmdeploy(running: Front) -> Front:
    """The server, with nothing left over from the test before."""
    httpx.post(f"{running._root}/_standin/forget", timeout=60).raise_for_status()
    return running
