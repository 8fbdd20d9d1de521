"""Ollama's OpenAI-compatible endpoint.

Signs with the namespace of the model ("library" for its own), so a model of a user's namespace is
taken for a plain OpenAI server, which loses little: schemas are tried there.
"""

from __future__ import annotations

from typing import ClassVar

from internvl_modal.protocol.dialects.base import Dialect


class Ollama(Dialect):
    """Splits parts into messages of their own, takes schemas, and may leave ``usage`` out."""

    name = "ollama"
    json_schema = True
    most_stops = None
    parameters: ClassVar = {
        name: name for name in ("frequency_penalty", "presence_penalty", "logprobs", "top_logprobs")
    }
