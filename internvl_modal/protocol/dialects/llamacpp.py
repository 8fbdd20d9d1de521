"""llama.cpp's own server."""

from __future__ import annotations

from typing import ClassVar

from internvl_modal.protocol.dialects.base import SAMPLING, Dialect


class LlamaCpp(Dialect):
    """Cuts by a rule of its own, so that pictures are shrunk to get fewer tiles."""

    name = "llamacpp"
    json_schema = True
    assumed = False
    rule = "llama.cpp"
    greedy: ClassVar = {"top_k": 1}
    repetition = "repeat_penalty"
    as_stream = True
    most_stops = None
    parameters: ClassVar = {
        name: name
        for name in SAMPLING
        if name not in ("min_tokens", "min_new_tokens", "skip_special_tokens")
    }
    # It gives each connection a thread until that closes or was idle for 5 s, and of those that are
    # opened at once it may leave some in a queue behind the idle ones.
    headers: ClassVar = {"connection": "close"}
