"""What the engine's server is started with so that it takes what was planned, and no more."""

from __future__ import annotations

from typing import Any

from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import EngineName
from internvl_modal.planning.memory import Memory

LEAST_RATIO = 0.05  # for whoever starts a plan that does not fit; LMDeploy takes no 0
MOST_OF_ALL = 0.98  # of a GPU's memory, for vLLM; what does not fit is deployed by force only


def of_engine(
    engine: EngineName, spec: ModelSpec, memory: Memory, vision_batch: int
) -> dict[str, Any]:
    """The options that only this engine has, by its own names for them.

    LMDeploy takes a share of what the weights leave for its cache, vLLM one of the whole memory.
    """
    if engine == "vllm":
        return {"gpu_memory_utilization": min(MOST_OF_ALL, memory.share)}
    return {
        "model_format": "awq" if spec.awq else None,
        # A forced deploy of what does not fit must still give LMDeploy a share that it takes.
        "cache_max_entry_count": memory.ratio or LEAST_RATIO,
        "vision_max_batch_size": vision_batch,
    }
