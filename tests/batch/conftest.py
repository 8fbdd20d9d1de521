"""A fast server in another process, and folders of pictures that differ."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl

REPOSITORY = Path(__file__).parents[2]
QUICK = ivl.Retry(attempts=3, initial=0.01)


class Fast:
    """Talks to ``tests.batch.server``."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.batch.server", *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.origin = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{self.origin}/v1"

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"{self.origin}{path}", body, timeout=30) as answer:
            return json.load(answer)

    def report(self) -> dict[str, Any]:
        """What it was asked since the last report."""
        found: dict[str, Any] = self._ask("/log")
        return found

    def set(self, **how: object) -> None:
        self._ask("/set", json.dumps(how).encode())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def fast() -> Iterator[Callable[..., Fast]]:
    started: list[Fast] = []

    def start(*arguments: str) -> Fast:
        started.append(Fast(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()


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
