"""A Modal workspace on loopback and a machine of somebody who uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.machine import Machine
from tests.modal_plane import Plane


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
