"""llama.cpp's server: what tells one from another, and its command line."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

__all__ = ["CONTEXT", "Engine"]

CONTEXT = 8192
"""Tokens: one picture of 13 tiles is 3,328, and the answer as many as were asked for."""


@dataclass(frozen=True)
class Engine:
    """What tells one engine from another."""

    name: str
    model: str
    mmproj: str
    n_ctx: int
    n_gpu_layers: int

    def argv(self) -> list[str]:
        """The command that runs it, in this Python."""
        return [
            sys.executable,
            "-m",
            "internvl_modal.engines.llamacpp_main",
            json.dumps(asdict(self)),
        ]
