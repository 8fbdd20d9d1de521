"""Ollama's OpenAI-compatible endpoint."""

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
