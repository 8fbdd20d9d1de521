"""Parameters of other engines' chat completions: which ask for nothing, which are passed on.

A field that is passed over in silence is a promise that is not kept; refusing every unknown one
breaks clients that send defaults. So each field is honoured, or passed on to an engine that knows
it, or refused, unless its value asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from internvl_modal.gateway.errors import RefusedError
from internvl_modal.protocol.dialects.base import Dialect

IGNORED = frozenset(
    {
        *("metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention"),
        *("safety_identifier", "service_tier", "store", "user"),
        *("cache_prompt", "priority", "request_id"),
    }
)
"""Fields that change no answer."""

NOTHING: list[object] = [None, [], {}]
"""Values that ask for nothing in a field of any name."""

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    **dict.fromkeys(
        (
            *("add_special_tokens", "continue_final_message", "echo", "ignore_eos", "logprobs"),
            *(
                "include_stop_str_in_output",
                "no_stop_trim",
                "preserve_cache",
                "return_hidden_states",
            ),
            *(
                "return_logprob",
                "return_token_ids",
                "return_tokens_as_token_ids",
                "use_beam_search",
            ),
            "with_cache",
        ),
        (False,),
    ),
    **dict.fromkeys(
        (
            *("add_generation_prompt", "detokenize", "include_reasoning", "separate_reasoning"),
            *("skip_special_tokens", "spaces_between_special_tokens", "stream_reasoning"),
        ),
        (True,),
    ),
    **dict.fromkeys(
        (
            *(
                "dry_multiplier",
                "dynatemp_range",
                "frequency_penalty",
                "min_keep",
                "min_new_tokens",
            ),
            *(
                "min_new_tokens",
                "min_p",
                "min_tokens",
                "mirostat",
                "presence_penalty",
                "repetition_ngram_size",
            ),
            *("repetition_ngram_threshold", "top_logprobs", "xtc_probability"),
        ),
        (0,),
    ),
    **dict.fromkeys(("best_of", "length_penalty", "n", "repeat_penalty", "typical_p"), (1,)),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "session_id": (-1,),
    "tool_choice": ("none", "auto"),
}
"""Values that ask for nothing, of OpenAI, LMDeploy, vLLM, SGLang and llama.cpp; see NOTHING."""

UNSET: Mapping[str, tuple[object, ...]] = {
    "max_tokens": (-1,),
    "max_completion_tokens": (-1,),
    "repetition_penalty": (1,),
    "seed": (-1,),
    "top_k": (-1, 0),
    "top_p": (1,),
}
"""Values of our own options that mean what leaving them out does."""


def passed_on(given: Mapping[str, object], dialect: Dialect) -> dict[str, object]:
    """``given`` with the names of the server behind; raises RefusedError for what it has not.

    Engines name the same thing differently (``min_tokens``): the dialect knows.
    """
    fields: dict[str, object] = {}
    for name, value in given.items():
        if name not in dialect.parameters:
            raise unsupported(name, " by the model's server")
        fields[dialect.parameters[name]] = value
    return fields


def is_neutral(name: str, value: object) -> bool:
    """Whether a field asks for nothing."""
    if value is None or (isinstance(value, list | dict) and not value):
        return True
    known = NEUTRAL.get(name, ())
    # True equals 1 in Python, and does not mean the same here.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in known)


def unsupported(param: str, how: str = "") -> RefusedError:
    """The error for a parameter that cannot be honoured."""
    text = f"{param!r:.100} is not supported{how}; leave it out"
    return RefusedError(422, text, param=param[:200], code="unsupported_parameter")
