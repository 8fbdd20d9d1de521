"""LM Studio, which runs llama.cpp or MLX and does not say which.

No capability is certain, as it depends on the runtime that is loaded: schemas are tried, tiles are
a guess.
"""

from __future__ import annotations

from typing import ClassVar

from internvl_modal.protocol.dialects.base import Dialect


class LMStudio(Dialect):
    """Parameters have llama.cpp's names (lmstudio.ai/docs, "OpenAI Compatibility Endpoints")."""

    name = "lmstudio"
    greedy: ClassVar = {"top_k": 1}
    repetition = "repeat_penalty"
