"""A server of the tests in a process of its own, so that its work is not the client's."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

REPOSITORY = Path(__file__).parents[1]


class Served:
    """Talks to ``module``, which prints its port and tells at ``/log`` what it was asked."""

    module: ClassVar[str]

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.origin = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{self.origin}/v1"

    def ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"{self.origin}{path}", body, timeout=30) as answer:
            return json.load(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


S = TypeVar("S", bound=Served)


def starting(kind: type[S]) -> Iterator[Callable[..., S]]:
    """A function that starts one; all are ended at the end."""
    started: list[S] = []

    def start(*arguments: str) -> S:
        started.append(kind(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()
