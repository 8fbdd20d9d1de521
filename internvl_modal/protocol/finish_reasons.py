"""How an answer ended, in the words of every server that has been heard of.

An unknown word is no error: the text is there. It becomes a warning, and the answer counts as
ended.

>>> finish_of("MAX_TOKENS"), finish_of(None), finish_of("abort")
('length', 'stop', None)
"""

from __future__ import annotations

import re

from internvl_modal.schema.results import FinishReason

_ENDS: dict[str, FinishReason] = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "stop_sequence", "stop_token", "end_turn", "end", "complete"),
        "stop",
    ),
    **dict.fromkeys(("completed", "finished", "done", "null", "none"), "stop"),
    **dict.fromkeys(
        ("length", "max_tokens", "max_length", "max_output_tokens", "max_new_tokens"), "length"
    ),
    **dict.fromkeys(("model_length", "token_limit", "model_context_window_exceeded"), "length"),
}
"""vLLM, SGLang, LMDeploy and OpenAI; TGI (eos_token, stop_sequence); Anthropic (end_turn,
max_tokens); Google (STOP, MAX_TOKENS); Mistral (model_length); Z.ai (the context window)."""

_PREFIX = re.compile(r"\Afinish_?reason[._]")
"""Of names of enumerations: ``FINISH_REASON_STOP``, ``FinishReason.MAX_TOKENS``."""


def finish_of(word: object) -> FinishReason | None:
    """What a server's word for the end of an answer means; None for an unknown one.

    No word at all is an end like any other: some servers leave it out.
    """
    if isinstance(word, dict):  # SGLang's own: {"type": "length", "length": 128}
        word = word.get("type", word)
    if word is None or word == "":
        return "stop"
    return _ENDS.get(_PREFIX.sub("", word.strip().lower())) if isinstance(word, str) else None
