"""The engines by name, and which of them a model gets where nobody chooses."""

from __future__ import annotations

from collections.abc import Mapping

from internvl_modal.engines.base import EngineOptions
from internvl_modal.engines.lmdeploy import LMDeploy018Options, LMDeployOptions
from internvl_modal.engines.vllm import VLLMOptions
from internvl_modal.errors import ConfigError

__all__ = ["ENGINES", "engine_of"]

ENGINES: Mapping[str, type[EngineOptions]] = {
    each.engine: each for each in (LMDeployOptions, LMDeploy018Options, VLLMOptions)
}


def engine_of(name: str) -> type[EngineOptions]:
    """The engine of that name; raises ConfigError.

    >>> engine_of("vllm").program
    'vllm'
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}", hint=f"one of {', '.join(ENGINES)}")
    return ENGINES[name]
