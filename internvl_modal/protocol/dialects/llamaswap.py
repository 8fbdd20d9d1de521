"""llama-swap, a proxy that starts the server of the model asked for: mostly llama.cpp's.

Unknown fields are passed over by both kinds of engine, so sending two names is safe.
"""

from __future__ import annotations

from typing import ClassVar

from internvl_modal.protocol.dialects.base import Dialect
from internvl_modal.protocol.http import Json
from internvl_modal.schema.options import DescribeOptions


class LlamaSwap(Dialect):
    """What stands behind is not told, so that both names of the penalty are sent."""

    name = "llama-swap"
    greedy: ClassVar = {"top_k": 1}

    def sampling(self, options: DescribeOptions) -> Json:
        """llama.cpp reads ``repeat_penalty`` and passes over the other; vLLM the reverse."""
        given = super().sampling(options)
        if options.repetition_penalty is not None:
            given["repeat_penalty"] = options.repetition_penalty
        return given
