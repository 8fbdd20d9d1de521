"""A fast server in another process, and folders of pictures that differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.served import Served, starting

QUICK = ivl.Retry(attempts=3, initial=0.01)


class Fast(Served):
    """Answers at once, or as it is set."""

    module = "tests.batch.server"

    def report(self) -> dict[str, Any]:
        """What it was asked since the last report."""
        found: dict[str, Any] = self.ask("/log")
        return found

    def set(self, **how: object) -> None:
        self.ask("/set", json.dumps(how).encode())


@pytest.fixture
def fast() -> Iterator[Callable[..., Fast]]:
    yield from starting(Fast)


@pytest.fixture
def server(fast: Callable[..., Fast]) -> Fast:
    return fast()


@pytest.fixture
def client(server: Fast) -> Iterator[ivl.Client]:
    with ivl.Client(base_url=server.url, retry=QUICK) as made:
        yield made


def make_pictures(folder: Path, count: int) -> Path:
    """Small pictures, no two of which are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = Image.new("RGB", (8, 8), (index & 255, index >> 8 & 255, index >> 16))
        picture.save(folder / f"{index:06}.png")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[int], Path]:
    return lambda count: make_pictures(tmp_path / "pictures", count)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
