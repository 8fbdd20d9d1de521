"""Fixtures for pytest: ``pytest_plugins = ["internvl_modal.testing.fixtures"]`` in a conftest.

No entry point of pytest's, which would import this in every run of everybody who has the package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from internvl_modal.settings import PREFIX
from internvl_modal.testing.backend import FakeBackend
from internvl_modal.testing.server import FakeServer

__all__ = ["internvl_backend", "internvl_server"]


@pytest.fixture
def internvl_backend() -> Iterator[FakeBackend]:
    """A backend to pass as ``Client(backend)``; says "A picture." until told otherwise."""
    backend = FakeBackend()
    yield backend
    backend.stop()


@pytest.fixture
def internvl_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that clients without arguments ask, ``internvl_modal.describe`` among them.

    For programs that make their client themselves: INTERNVL_MODAL_BASE_URL names it, and no other
    such variable of the environment is left.
    """
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    with FakeServer() as server:
        monkeypatch.setenv(f"{PREFIX}BASE_URL", server.url)
        yield server
    # The package's own client keeps the connection of the first call.
    if shortcuts := sys.modules.get("internvl_modal.client.shortcuts"):
        shortcuts.close()
