"""What LMDeploy's TurboMind puts on each GPU, in 0.7.3 and in 0.18.

The constants come from the sources of LMDeploy 0.7.3, each named beside its value. 0.18 differs in
its vision model, which is its own and tensor-parallel; the buffers of its language model are
reckoned as 0.7.3's. Flash models run in its PyTorch engine, which takes the same options.
"""

from __future__ import annotations

from internvl_modal.models.shapes import LlmShape, ModelSpec
from internvl_modal.planning.footprint import (
    FLOAT,
    HALF,
    Footprint,
    Work,
    attention_share,
    vision_share,
    vision_work,
)

__all__ = ["KV_BLOCK", "footprint_018", "footprint_073"]

KV_BLOCK = 64  # tokens in a block of the cache (TurbomindEngineConfig.cache_block_seq_len)
PREFILL = 8192  # tokens in one forward pass (TurbomindEngineConfig.max_prefill_token_num)
"""It sizes the buffers of the forward pass whatever the session is: TurboMind cuts a longer prompt
into pieces of so many tokens.
"""

_MIB = 2**20
_ATTENTION_TOKENS = 4096  # kMaxWorkspaceTokens of unified_attention_layer.h: split-k partials
_GEMM_WORKSPACE = 65 * _MIB  # gemm.h: 1 MiB barriers, 32 MiB partials; cublasMMWrapper.h: 32 MiB
# 4-byte arrays of batch x vocabulary: logits, local and gathered (LlamaBatch.cc), and for sampling
# the indices, the ids to sort by, and what cub sorts keys and values into (SamplingLayer.cc).
_LOGITS_COPIES = 6
# int32 arrays of batch x session: input ids, token ids twice, and output ids of three states.
_ID_ARRAYS = 6


def footprint_073(spec: ModelSpec, work: Work) -> Footprint:
    """0.7.3: accelerate spreads the layers of the ViT over the GPUs."""
    return Footprint(
        llm=_share(spec, work.tp),
        vision=-(-spec.vision_bytes // work.tp),
        engine=_engine_buffers(spec, work),
        vision_work=vision_work(spec.vit, work.tiles, flash_attention=work.flash_attention),
    )


def footprint_018(spec: ModelSpec, work: Work) -> Footprint:
    """0.18: a ViT of its own, tensor-parallel, whose attention keeps no scores."""
    return Footprint(
        llm=_share(spec, work.tp),
        vision=vision_share(spec, work.tp, projector=work.tp),
        engine=_engine_buffers(spec, work),
        vision_work=vision_work(spec.vit, work.tiles, flash_attention=True),
    )


def _share(spec: ModelSpec, tp: int) -> int:
    """TurboMind splits the matrices by heads and MLP columns, the embedding by hidden size and the
    output head by vocabulary (padded to a multiple of tp); norms are on every GPU.
    """
    llm = spec.llm
    vocab = -(-llm.vocab // tp) * tp
    layers = spec.layer_bytes(attention_share(llm, tp), llm.mlp_params / tp)
    return -int(-layers // 1) + HALF * (2 * vocab * llm.hidden // tp + llm.small_params)


def _engine_buffers(spec: ModelSpec, work: Work) -> int:
    """Bytes of the buffers that TurboMind takes for a batch of sessions, used or not."""
    llm, tokens = spec.llm, PREFILL + work.batch
    hidden = 2 * tokens * llm.hidden * HALF  # decoder input and output, not split
    logits = _LOGITS_COPIES * work.batch * llm.vocab * FLOAT
    ids = _ID_ARRAYS * work.batch * work.session_len * FLOAT
    layer = _attention_buffers(llm, work, tokens) + _mlp_buffer(spec, work.tp, tokens)
    return hidden + logits + ids + layer + _GEMM_WORKSPACE


def _attention_buffers(llm: LlmShape, work: Work, tokens: int) -> int:
    """Queries, keys and values of one pass, a session's keys and values in a row, split-k partials.

    A prompt's cached blocks are copied into one contiguous array before its attention, hence
    ``linear_kv``, which grows with the session. Beyond the number of KV heads each GPU holds one
    whole.
    """
    heads, kv_heads = llm.heads // work.tp, max(1, llm.kv_heads // work.tp)
    qkv_and_output = tokens * (2 * heads + 2 * kv_heads) * llm.head_dim * HALF
    linear_kv = 2 * kv_heads * work.session_len * llm.head_dim * HALF
    partials = _ATTENTION_TOKENS * heads * (llm.head_dim + 3) * FLOAT
    return qkv_and_output + linear_kv + partials


def _mlp_buffer(spec: ModelSpec, tp: int, tokens: int) -> int:
    """Gate and up projections; the 4-bit kernels fuse the activation and keep one of them.

    With experts, of each that works on a token, and what they are added up from.
    """
    if spec.llm.experts:
        wide = 2 * spec.llm.experts.inter // tp + spec.llm.hidden
        return tokens * spec.llm.experts.active * wide * HALF
    return tokens * spec.llm.inter // tp * HALF * (1 if spec.awq else 2)
