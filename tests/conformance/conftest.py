"""LMDeploy's own front ends, each started once for the tests that need it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.backends.lmdeploy import LMDeployBackend
from tests.conformance.environment import NEW, OLD, VERSIONS, lmdeploy_executable
from tests.conformance.serving import SESSION_LEN, Front, Servers

ENABLED = "INTERNVL_MODAL_TEST_CONFORMANCE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the environments."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.conformance)


@pytest.fixture(scope="session")
def enabled() -> None:
    """Skips where nobody asked for these tests."""
    if os.environ.get(ENABLED) != "1":
        pytest.skip(f"needs LMDeploy's front ends (4 GB installed once); set {ENABLED}=1")


@pytest.fixture(scope="session")
def executable(enabled: None) -> str:
    """The stand-in for the ``lmdeploy`` command of the version that the package runs itself."""
    return str(lmdeploy_executable(OLD))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for a folder of weights; the stand-in looks at its name only."""
    folder = tmp_path_factory.mktemp("weights") / "InternVL2_5-78B"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def backend(executable: str, model_folder: Path) -> Iterator[LMDeployBackend]:
    """The package's own server, with LMDeploy's documented session length for documents."""
    backend = LMDeployBackend(
        model_folder,
        executable=executable,
        startup_timeout=120,
        tp=4,
        session_len=SESSION_LEN,
        max_batch_size=8,
    )
    yield backend
    backend.stop()


@pytest.fixture(scope="session")
def running(backend: LMDeployBackend) -> Iterator[Front]:
    """That server, and a client that is told where it is, and nothing else."""
    endpoint = backend.start()
    with ivl.Client(
        base_url=endpoint.base_url,
        api_key=endpoint.headers["authorization"].removeprefix("Bearer "),
        retry=ivl.Retry(attempts=1),
    ) as client:
        yield Front.of(backend, client)


@pytest.fixture(scope="session")
def servers(enabled: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers as people start them."""
    with Servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
def old(running: Front) -> Front:
    """LMDeploy 0.7.3, with nothing left over from the test before."""
    running.forget()
    return running


@pytest.fixture
def new(servers: Servers) -> Front:
    """LMDeploy 0.18.0, with nothing left over from the test before."""
    return servers.get(NEW, "InternVL3-8B")


@pytest.fixture(params=VERSIONS)
def lmdeploy(request: pytest.FixtureRequest) -> Front:
    """Either."""
    front = request.getfixturevalue("old" if request.param == OLD else "new")
    assert isinstance(front, Front)
    return front
