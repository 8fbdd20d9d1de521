"""What every dialect shares."""

from __future__ import annotations

from collections.abc import Iterable

from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import Json
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.options import DescribeOptions


def _labels(turn: Turn) -> Iterable[str]:
    """InternVL's own wording: nothing before a single picture, else ``Image-1: `` and so on."""
    if len(turn.images) == 1 and turn.label == "Image-":
        return [""]
    return [f"{turn.label}{number}: " for number in range(1, len(turn.images) + 1)]


ZERO_SEED = 2**32 - 1
"""Sent to LMDeploy for ``seed=0``, which it takes for no seed."""


def sampling(options: DescribeOptions, capabilities: Capabilities) -> Json:
    """The sampling parameters, so that 0 means what the user means by it."""
    lmdeploy = capabilities.dialect == "lmdeploy"
    top_k, seed = options.top_k, options.seed
    if options.temperature == 0 and capabilities.dialect in ("lmdeploy", "llamacpp"):
        top_k = 1
    if seed == 0 and lmdeploy:
        seed = ZERO_SEED
    penalty = "repeat_penalty" if capabilities.dialect == "llamacpp" else "repetition_penalty"
    given: Json = {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": top_k,
        "seed": seed,
        "stop": list(options.stop) or None,
        penalty: options.repetition_penalty,
    }
    return {name: value for name, value in given.items() if value is not None}
