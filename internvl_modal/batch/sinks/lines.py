"""What a file of captions holds: read line by line, never as a whole.

The format is public: other programs read it, and a later version must too. Fields are only ever
added.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_modal.batch.outcome import Outcome, asked_digest, identity
from internvl_modal.batch.schemas import columns_of
from internvl_modal.batch.signed_urls import without_signature
from internvl_modal.errors import ConfigError, InternVLError, ServerError

_BEGINNING = b'{"key": '
"""Every line starts so; a torn first line can be told from a stranger's file by it."""


@dataclass(frozen=True)
class Line:
    """One finished line."""

    raw: bytes
    document: dict[str, Any]

    @property
    def key(self) -> str:
        """The input's key, as it is today: 0.1.0 kept the signatures of URLs."""
        return without_signature(str(self.document["key"]))

    @property
    def run(self) -> object:
        """The fingerprint of what was asked."""
        return self.document.get("run")

    @property
    def failed(self) -> bool:
        """Whether it tells of an error."""
        return "error" in self.document

    @property
    def content(self) -> str:
        """A digest of what the key does not tell of the picture."""
        return str(self.document.get("content") or "")

    @property
    def asked(self) -> str:
        """The digest of its prompt, where that was the row's own."""
        return str(self.document.get("asked") or "")

    @property
    def identity(self) -> str:
        """What a later run knows the input by."""
        return identity(self.key, self.asked)

    @property
    def earlier(self) -> bool:
        """Whether it is a description by 0.1.0."""
        return not self.failed and "seen" not in self.document


def line_of(raw: bytes, number: int, name: object) -> Line:
    """The line with this number in ``name``; raises ConfigError if no batch wrote it."""
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    # Its own fields and not only its form: a list of other JSON lines must not be appended to.
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
        # From the end, 64 KB at a time: the file may be gigabytes, its last line is short.
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def record(outcome: Outcome, run: str, content: str = "") -> dict[str, object]:
    """The fields of an outcome, as every kind of output has them."""
    found: dict[str, object]
    if outcome.description is not None:
        described = outcome.description
        found = {
            "text": described.text,
            "model": described.model,
            "finish_reason": described.finish_reason,
            "usage": described.usage.model_dump(),
            "seen": described.seen,
            "images": [{"tiles": each.tiles, "tokens": each.tokens} for each in described.images],
            "warnings": list(described.warnings),
            "request_id": described.request_id,
        }
    else:
        error = outcome.error
        message = error.message if isinstance(error, InternVLError) else str(error)
        told = {"type": type(error).__name__, "message": message}
        found = {"error": told}
        if isinstance(error, ServerError):
            # What does not fit its schema is paid for, and shows what to change.
            told |= {"text": error.text} if error.text else {}
            found["request_id"] = error.request_id
    found |= {name: each.text for name, each in outcome.answers.items()}
    found |= columns_of(outcome.value)
    found |= {"imported": True} if outcome.imported else {}
    if outcome.prompt:
        found |= {"prompt": outcome.prompt, "asked": asked_digest(outcome.prompt)}
    found |= {"flags": list(outcome.flags)} if outcome.flags or outcome.ok else {}
    found |= {"tried": list(outcome.tried)} if outcome.tried else {}
    end = {"attempts": outcome.attempts, "seconds": round(outcome.seconds, 3), "run": run}
    held = {"content": content} if content and outcome.ok else {}
    return {"key": outcome.key, **found, **held, **end}


def encode(document: dict[str, object]) -> bytes:
    """One line of JSON; names of files that are no Unicode are escaped."""
    try:
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(document).encode() + b"\n"
