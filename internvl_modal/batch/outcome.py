"""What became of one picture, and the line that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import shorten

from pydantic import BaseModel

from internvl_modal._utils.notebook import card
from internvl_modal.schema.inputs import ImageSource
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.results import Description

__all__ = ["FIELDS", "Outcome", "asked_digest", "fingerprint", "identity", "key_hash"]

FIELDS = frozenset((
    "key", "text", "model", "finish_reason", "usage", "seen", "images", "warnings", "request_id",
    "error", "prompt", "asked", "content", "attempts", "seconds", "run", "flags", "tried", "file",
    "shard", "imported", "preset", "source", "image", "file_name", "value", "error_type",
    "error_message", "error_text", "prompt_tokens", "completion_tokens", "tiles", "tokens",
))  # fmt: skip
"""What lines and rows have of their own: no prompt is called so, and a field of a schema that is
gets ``value_`` before its name."""

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
    value: object = None
    """With ``schema=``: what was read, a model of pydantic or a dict."""
    answers: Mapping[str, Description] = field(default_factory=dict)
    """With ``prompts=``: the answer to each by its name, of a failure those that there are."""
    prompt: str | Mapping[str, str] = ""
    """What was asked, where it was made of the input's row."""
    flags: tuple[str, ...] = ()
    """What is wrong with the answer, by the names of the rules; of a failure why it is one."""
    tried: tuple[str, ...] = ()
    """Where it was asked more than once for that, what came of each: "temperature 0.2: cut"."""
    imported: bool = False
    """Whether somebody else has described it: nothing was asked."""

    @property
    def ok(self) -> bool:
        """Whether there is a description, with ``prompts=`` of each."""
        return self.error is None

    @property
    def text(self) -> str | None:
        """The description's text; of several answers all, with an empty line between them."""
        return self.description.text if self.description else None

    def __repr__(self) -> str:
        told = self.error if self.error is not None else shorten(self.text or "", 60)
        return f"Outcome({self.key!r}, {told!r})"

    def _repr_html_(self) -> str:
        from internvl_modal.captions.thumbnails import thumbnail  # which needs Pillow

        facts = [self.key, f"{self.seconds:.2f} s"]
        lead = self.text if self.error is None else f"{type(self.error).__name__}: {self.error}"
        return card(lead or "", facts, warnings=self.flags, picture=thumbnail(self.source))

    def to_dict(self) -> dict[str, object]:
        """What a line of an output has of it, ready for JSON; the picture is left out."""
        return {
            "key": self.key,
            "text": self.text,
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
            "description": self.description and self.description.to_dict(),
            "answers": {name: each.to_dict() for name, each in self.answers.items()},
            "value": self.value.model_dump(mode="json")
            if isinstance(self.value, BaseModel)
            else self.value,
            "attempts": self.attempts,
            "seconds": self.seconds,
            "flags": list(self.flags),
            "tried": list(self.tried),
            "imported": self.imported,
        }

    @property
    def identity(self) -> str:
        """What a later run knows it by: its key, and its prompt where rows have their own."""
        return identity(self.key, asked_digest(self.prompt))


def identity(key: str, asked: str) -> str:
    """The key, with what was asked where that is the row's own."""
    return f"{key}\0{asked}" if asked else key


def asked_digest(prompt: str | Mapping[str, str]) -> str:
    """Twelve hexadecimal digits for a row's prompt; "" where it has none of its own."""
    if not prompt:
        return ""
    document = prompt if isinstance(prompt, str) else json.dumps(dict(prompt), sort_keys=True)
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def fingerprint(prompt: object, options: DescribeOptions, model: str) -> str:
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
