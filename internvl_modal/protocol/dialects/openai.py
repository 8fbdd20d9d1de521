"""Servers of which nothing is known but that they speak the OpenAI protocol.

OpenRouter, Together, TGI, Azure, and whatever names nobody: they keep the order of texts and
pictures, or make of it what their model's template wants.
"""

from __future__ import annotations

from internvl_modal.protocol.dialects.base import Dialect


class OpenAI(Dialect):
    """The plain protocol."""

    name = "openai"
