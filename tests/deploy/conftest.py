"""A Modal workspace on loopback and a machine of somebody who uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from internvl_modal.weights import WeightsCache
from tests.deploy.machine import Machine
from tests.loopback_hub import LoopbackHub
from tests.modal_plane import Plane

Answering = Callable[[Callable[[], object], int], None]


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    with Plane() as running:
        yield running


@pytest.fixture
def machine(plane: Plane, tmp_path: Path) -> Machine:
    """A machine whose workspace has no app, no secret and no image."""
    plane.apps.clear()
    plane.secrets.clear()
    plane.images.clear()
    plane.forget()
    return Machine(plane, tmp_path / "machine")


@pytest.fixture
def answering(machine: Machine) -> Iterator[Answering]:
    """The weights are on the Volume; ``serve`` does something, then answers with a status."""
    repo = "OpenGVLab/InternVL2_5-1B"
    with LoopbackHub() as hub:
        hub.commit(repo, {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"1"})
        volume = machine.plane.volume_path("internvl-modal-weights")
        WeightsCache(volume, endpoint=hub.url).ensure(repo, progress=None)

    def answer(first: Callable[[], object], status: int) -> None:
        async def handle(_: web.Request) -> web.Response:
            done = first()
            if isinstance(done, Awaitable):
                await done
            body = {"message": "cannot start"} if status >= 400 else {"data": [{"id": "internvl"}]}
            return web.json_response(body, status=status)

        machine.plane.stands_in["serve"] = handle

    yield answer
    machine.plane.stands_in.clear()
    machine.plane.faults.clear()
