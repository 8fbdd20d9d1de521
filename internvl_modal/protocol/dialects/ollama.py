"""Ollama's OpenAI-compatible endpoint."""

from __future__ import annotations

from internvl_modal.protocol.dialects.base import Dialect


class Ollama(Dialect):
    """Splits parts into messages of their own, takes schemas, and may leave ``usage`` out."""

    name = "ollama"
    json_schema = True
    most_stops = None
