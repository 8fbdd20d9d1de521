"""What became of one picture, and the line that says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from internvl_modal.errors import InternVLError
from internvl_modal.schema import DescribeOptions, Description, ImageSource

__all__ = ["Outcome", "encode", "fingerprint", "key_hash", "record"]

_SAME_TEXT = {"timeout", "max_pixels", "allow_private_urls"}
"""Options that do not change what a model says of a picture."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input: a description, or the error that prevented it."""

    key: str
    source: ImageSource = field(repr=False)
    description: Description | None = None
    error: Exception | None = None
    attempts: int = 0
    """Requests sent for it; 0 where none was needed."""
    seconds: float = 0.0
    """From the start of its preparation to its end."""

    @property
    def ok(self) -> bool:
        """Whether there is a description."""
        return self.description is not None

    @property
    def text(self) -> str | None:
        """The description's text."""
        return self.description.text if self.description else None


def fingerprint(prompt: str, options: DescribeOptions, model: str) -> str:
    """Name of a run: the same for the same question to the same model."""
    asked = options.model_dump(mode="json", exclude=_SAME_TEXT)
    document = json.dumps([prompt, asked, model], sort_keys=True)
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def key_hash(key: str) -> int:
    """64 bits for ``key``: two of a million keys are the same with a chance of 3 in 10^8."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def record(outcome: Outcome, run: str) -> dict[str, object]:
    """The fields of an outcome, as every kind of output has them."""
    found: dict[str, object]
    if outcome.description is not None:
        described = outcome.description
        found = {
            "text": described.text,
            "model": described.model,
            "finish_reason": described.finish_reason,
            "usage": described.usage.model_dump(),
        }
        if described.warnings:
            found["warnings"] = list(described.warnings)
    else:
        error = outcome.error
        message = error.message if isinstance(error, InternVLError) else str(error)
        found = {"error": {"type": type(error).__name__, "message": message}}
    end = {"attempts": outcome.attempts, "seconds": round(outcome.seconds, 3), "run": run}
    return {"key": outcome.key, **found, **end}


def encode(document: dict[str, object]) -> bytes:
    """One line of JSON; names of files that are no Unicode are escaped."""
    try:
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(document).encode() + b"\n"
