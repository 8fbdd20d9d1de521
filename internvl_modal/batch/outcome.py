"""What became of one picture, and the line that says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from internvl_modal.schema.inputs import ImageSource
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.results import Description

__all__ = ["Outcome", "fingerprint", "key_hash"]

_SAME_TEXT = {
    "timeout", "max_pixels", "max_bytes_decoded", "allow_private_urls", "user_agent", "shrink",
}  # fmt: skip
"""Options that do not change what a model says of a picture."""
_FIRST = {
    "detail", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "repetition_penalty",
    "system", "background",
}  # fmt: skip
"""Options of 0.1.0, which are always told; the later ones where they are used, so that a run of
an earlier version is the same run."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input: a description, or the error that prevented it.

    Every input gets exactly one, in whatever order, unless the batch ends before it.
    """

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
    """Name of a run: the same for the same question to the same model.

    Twelve hexadecimal digits. Options about how a picture is read or how long is waited are not
    part of it, as they do not change the answer's meaning.
    """
    asked = options.model_dump(mode="json", include=_FIRST)
    # A later option counts only where it is not at its default: old files stay resumable.
    asked |= options.model_dump(mode="json", exclude=_SAME_TEXT | _FIRST, exclude_defaults=True)
    document = json.dumps([prompt, asked, model], sort_keys=True)
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def key_hash(key: str) -> int:
    """64 bits for ``key``: two of a million keys are the same with a chance of 3 in 10^8.

    Keys are remembered by it: eight bytes for each of a million, and not a hundred.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
