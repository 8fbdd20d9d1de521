"""The server that answers badly, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import internvl_modal as ivl

REPOSITORY = Path(__file__).parents[2]
QUICK = ivl.Retry(attempts=3, initial=0.01)


class Bad:
    """Talks to ``tests.captions.server``."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.captions.server", *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.origin = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{self.origin}/v1"

    def log(self) -> list[dict[str, Any]]:
        """Every request since the last time."""
        with urllib.request.urlopen(f"{self.origin}/log", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def bad() -> Iterator[Callable[..., Bad]]:
    started: list[Bad] = []

    def start(*arguments: str) -> Bad:
        started.append(Bad(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()
