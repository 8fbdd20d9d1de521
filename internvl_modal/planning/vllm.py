"""What vLLM puts on each GPU.

It takes a share of the whole memory (``--gpu-memory-utilization``), loads the weights, runs the
largest step and the largest batch of pictures once to see what they need, and makes the KV cache of
what is left of its share. Read in version 0.32: ``v1/worker/gpu_worker.py``,
``model_executor/models/internvl.py``, ``intern_vit.py``. No measurement was published that this
could be held against; what is estimated says so.
"""

from __future__ import annotations

from internvl_modal.engines.vllm import BATCHED_TOKENS
from internvl_modal.models.shapes import TILE_TOKENS, LlmShape, ModelSpec
from internvl_modal.planning.footprint import (
    FLOAT,
    HALF,
    Footprint,
    Work,
    attention_share,
    vision_share,
    vision_work,
)

__all__ = ["KV_BLOCK", "MAX_SHARE", "footprint"]

KV_BLOCK = 16
MAX_SHARE = 0.92  # of all memory: its own default (config/cache.py); never plan for more
GRAPHS = 2**30
"""CUDA graphs of up to twice 64 requests: an estimate, of vLLM's own "1 to 3 GiB" for 512."""
_PAD = 64  # vocab_parallel_embedding.py: rows of the embedding and the output head
_LOGITS_COPIES = 3  # 4-byte arrays of batch x vocabulary: logits, sorted, their indices (estimate)


def footprint(spec: ModelSpec, work: Work) -> Footprint:
    """Its ViT takes as many tiles in one pass as a step has tokens for, and keeps no scores."""
    tiles = max(BATCHED_TOKENS // TILE_TOKENS, work.tiles)
    return Footprint(
        llm=_share(spec, work.tp),
        vision=vision_share(spec, work.tp, projector=1),
        engine=_engine_buffers(spec.llm, work),
        vision_work=vision_work(spec.vit, tiles, flash_attention=True),
    )


def _share(spec: ModelSpec, tp: int) -> int:
    """Matrices are split by heads and columns, both ends by vocabulary; tied ones are one."""
    llm = spec.llm
    rows = -(-llm.vocab // (_PAD * tp)) * _PAD
    layers = spec.layer_bytes(attention_share(llm, tp), llm.mlp_params / tp)
    return -int(-layers // 1) + HALF * ((2 - llm.tied) * rows * llm.hidden + llm.small_params)


def _engine_buffers(llm: LlmShape, work: Work) -> int:
    """Of the largest step: the residual, a norm and its input, and the wider half of a layer."""
    stream = 3 * BATCHED_TOKENS * llm.hidden * HALF
    heads, kv_heads = -(-llm.heads // work.tp), max(1, llm.kv_heads // work.tp)
    attention = BATCHED_TOKENS * (2 * heads + 2 * kv_heads) * llm.head_dim * HALF
    logits = _LOGITS_COPIES * work.batch * llm.vocab * FLOAT
    return stream + max(attention, _mlp_buffer(llm, work.tp)) + logits + GRAPHS


def _mlp_buffer(llm: LlmShape, tp: int) -> int:
    """Gate, up and their product; with experts, of each that works, and the terms of their sum."""
    if llm.experts:
        wide = 3 * llm.experts.inter // tp + llm.hidden
        return BATCHED_TOKENS * llm.experts.active * wide * HALF
    return BATCHED_TOKENS * 3 * llm.inter // tp * HALF
