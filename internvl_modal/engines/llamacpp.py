"""llama.cpp's server: what tells one from another, and its command line.

Apart from the process, so that what a server is started with can be compared and tested without
starting one: backends share a server when their ``Engine`` is equal.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

__all__ = ["CONTEXT", "Engine"]

CONTEXT = 8192
"""Tokens: one picture of 13 tiles is 3,328, and the answer as many as were asked for.

More would reserve memory for keys and values at once, on a laptop's RAM.
"""


@dataclass(frozen=True)
class Engine:
    """What tells one engine from another.

    Hashable, as running servers are found by it. ``model`` and ``mmproj`` are absolute paths of
    GGUF files, ``n_ctx`` is in tokens, ``n_gpu_layers`` 0 for the CPU alone.
    """

    name: str
    model: str
    mmproj: str
    n_ctx: int
    n_gpu_layers: int

    def argv(self) -> list[str]:
        """The command that runs it, in this Python.

        One JSON argument: paths with spaces or dashes need no quoting. The key is not in it, as a
        command line is there for everyone on the machine to read.
        """
        return [
            sys.executable,
            "-m",
            "internvl_modal.engines.llamacpp_main",
            json.dumps(asdict(self)),
        ]
