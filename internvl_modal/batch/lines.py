"""What a file of captions holds: read line by line, never as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_modal.errors import ConfigError

_BEGINNING = b'{"key": '


@dataclass(frozen=True)
class Line:
    """One finished line."""

    raw: bytes
    document: dict[str, Any]

    @property
    def key(self) -> str:
        """The input's key."""
        return str(self.document["key"])

    @property
    def run(self) -> object:
        """The fingerprint of what was asked."""
        return self.document.get("run")

    @property
    def failed(self) -> bool:
        """Whether it tells of an error."""
        return "error" in self.document


def line_of(raw: bytes, number: int, name: object) -> Line:
    """The line with this number in ``name``; raises ConfigError if no batch wrote it."""
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    known = isinstance(document, dict) and (
        isinstance(document["error"], dict)
        if "error" in document
        else isinstance(document.get("text"), str)
    )
    if not known or "key" not in document:
        raise _foreign(number, name)
    return Line(raw, document)


def _foreign(number: int, name: object) -> ConfigError:
    return ConfigError(
        f"line {number} of {name} is not one of a batch",
        hint="choose another file, or remove that line",
    )


def read_lines(path: Path) -> Iterator[Line]:
    """Finished lines; raises ConfigError for a file that was not written by a batch."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if raw.endswith(b"\n"):
                yield line_of(raw, number, path)
            elif number == 1 and not _BEGINNING.startswith(raw.strip(b"\0")[: len(_BEGINNING)]):
                raise _foreign(number, path)  # no torn line, even where a power cut left zeros


def end_of_lines(path: Path) -> int:
    """Where the last finished line ends, in bytes."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
