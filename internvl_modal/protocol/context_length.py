"""Every way in which a server says that the prompt does not fit its context.

Each wording as the source of that server has it, or as it was heard from the server itself.

It matters to tell this error from other refusals: fewer tiles or a shorter prompt mend it, asking
again does not. Servers agree neither on a status (200, 400, 413, 422 and 500 have been seen) nor on
a code, so their words are read. A new wording is a row, best with its server and version.

>>> context_sizes(None, "request (9000 tokens) exceeds the available context size (8192 tokens)")
Sizes(needed=9000, available=8192)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from internvl_modal.protocol.http import number

_NEEDED, _AVAILABLE = r"(?P<needed>\d[\d,]*)", r"(?P<available>\d[\d,]*)"

_WORDINGS = [
    re.compile(pattern.replace("{needed}", _NEEDED).replace("{available}", _AVAILABLE), re.I | re.S)
    for pattern in (
        # vLLM 0.4 to 0.32, OpenAI, OpenRouter: the whole request, prompt and answer together
        r"maximum context length (?:is|of) {available} tokens.*?"
        r"for a total of (?:at least )?{needed}",
        r"maximum context length (?:is|of) {available} tokens.*?requested (?:a total of )?"
        r"(?:about )?{needed} tokens",
        r"maximum context length (?:is|of) {available} tokens.*?"
        r"(?:prompt contains|messages resulted in|request has) (?:at least )?{needed} "
        r"(?:input )?tokens",
        r"maximum context length (?:is|of) {available} tokens",
        # vLLM 0.13 to 0.16
        r"passed {needed} input tokens.*?context length is only {available} tokens",
        # vLLM 0.32, and LMDeploy 0.18: "Input length (N) ..."
        r"input length \({needed}(?: tokens)?\) (?:exceeds|must be smaller than) (?:the )?"
        r"(?:model'?s? )?(?:maximum )?(?:context|allowed) length \({available}",
        # vLLM 0.5 to 0.10
        r"prompt \((?:total )?length {needed}\).*?"
        r"(?:maximum model length of|context length) {available}",
        r"prompt length of {needed}.*?(?:length of) {available}",
        r"input prompt \({needed} tokens\) is too long and exceeds limit of {available}",
        # SGLang 0.4, 0.5
        r"input \({needed} tokens\) is longer than the model's context length \({available}",
        r"too long after expanding multimodal tokens.*?=> {needed} >= {available}",
        # llama.cpp
        r"request \({needed} tokens\) exceeds the available context size \({available}",
        # TGI 1 to 3, Together
        r"must have less than {available} tokens\. Given: {needed}",
        r"`max_new_tokens` must be <= {available}\. Given: (?P<prompt>\d+) `inputs` tokens and "
        r"(?P<answer>\d+)",
        # LM Studio 0.3
        r"keep the first {needed} tokens.*?context length of (?:only )?{available}",
        # Ollama's says by how much, which is neither count
        r"exceeded (?:max )?context length by \d+",
        # oMLX, DS4, Moonshot, Poolside
        r"prompt too long: {needed} tokens exceeds max context window of {available}",
        r"prompt has {needed} tokens, but the configured context size is {available}",
        r"token limit: {available} \(requested: {needed}",
        r"input length {needed} exceeds the maximum allowed input length of {available}",
        # Mistral, Anthropic, Google, xAI and Cohere behind routers
        r"prompt contains {needed} tokens.*?model with {available} maximum context length",
        r"prompt is too long: {needed}(?: tokens >|, model maximum context length:) {available}",
        r"input token count(?: is)? \(?{needed}\)?.*?exceeds the maximum number of tokens allowed "
        r"\(?{available}",
        r"maximum prompt length is {available} but the request contains {needed}",
        r"cannot exceed {available} - received {needed}",
    )
]
_WORDS = re.compile(
    r"context[ _](?:length|size|window|limit)|maximum model length|slot context is full"
    r"|(?:prompt|input) (?:is )?too long|prompt exceeds max length|too big compared to KV size"
    r"|too long after expanding|max(?:imum)? model len|(?:prompt|input) token count"
    r"|maximum (?:prompt|allowed|allowed input|input) length|too many (?:input )?tokens"
    r"|model token limit|range of input length|reduce the length of the messages"
    r"|`inputs` must have less than|`inputs` tokens \+ `max_new_tokens` must be"
    r"|max_tokens must be at least 1, got (?:0|-\d)",
    re.I,
)
"""The last is vLLM's when the prompt fills the context to the token; ours is 1 or more.

For wordings that are new: they tell that the context is meant, and not how large it is.
"""
_AVAILABLE_SOMEWHERE = re.compile(
    r"(?:context (?:length|size|window)\D{0,20}|n_ctx\D{0,5})(\d+)", re.I
)
_NEEDED_SOMEWHERE = re.compile(r"(?:requested|request|prompt)\D{0,30}?(\d+)\s*tokens", re.I)


class Sizes(NamedTuple):
    """Tokens; None where the server does not say.

    ``needed`` may be the prompt's alone or the prompt's with the answer's, as the server counts.
    """

    needed: int | None
    available: int | None


def is_context_length(said: str) -> bool:
    """Whether ``said``, a server's words, mean that the prompt does not fit."""
    return any(pattern.search(said) for pattern in (_WORDS, *_WORDINGS))


def context_sizes(document: object, said: str) -> Sizes:
    """What was needed and what there is, from llama.cpp's fields or from the words."""
    inner = document.get("error") if isinstance(document, dict) else None
    for fields in (inner, document):
        if isinstance(fields, dict) and number(fields.get("n_ctx")):
            return Sizes(number(fields.get("n_prompt_tokens")) or None, number(fields["n_ctx"]))
    for wording in _WORDINGS:
        if found := wording.search(said):
            groups = found.groupdict()
            needed = _count(groups.get("needed"))
            # TGI names the two parts, and limits their sum.
            if groups.get("prompt") and groups.get("answer"):
                needed = int(groups["prompt"]) + int(groups["answer"])
            return Sizes(needed, _count(groups.get("available")))
    return Sizes(_first(_NEEDED_SOMEWHERE, said), _first(_AVAILABLE_SOMEWHERE, said))


def _first(pattern: re.Pattern[str], said: str) -> int | None:
    found = pattern.search(said)
    return _count(found[1]) if found else None


def _count(digits: str | None) -> int | None:
    return int(digits.replace(",", "")) if digits else None
