"""What LMDeploy 0.7.3 (TurboMind) puts on each GPU for a model.

In the order it happens: the ViT (fp16, spread over the GPUs by accelerate), the LLM (each GPU
holds one share of every matrix), then the KV cache as a share of what is free at that moment,
then the engine's buffers and, with the first picture, the ViT's activations. The last two must fit
into what the cache left.

The constants come from the sources of LMDeploy 0.7.3, each named beside its value, and from
InternVL's published memory table (A100-80GB, nvidia-smi's figures). That table's rows for 38B and
78B carry the numbers of the older 40B and 76B, so they are compared with those shapes. Every byte
here is of one GPU; ``tp`` is the number of GPUs that share the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvl_modal.models.shapes import LlmShape, ModelSpec, VitShape

__all__ = ["MIB", "Memory", "measure"]

MIB = 2**20
_HALF = 2
_FLOAT = 4

KV_BLOCK = 64  # tokens in a block of the cache (TurbomindEngineConfig.cache_block_seq_len)
PREFILL = 8192  # tokens in one forward pass (TurbomindEngineConfig.max_prefill_token_num)
"""It sizes the buffers of the forward pass whatever the session is: TurboMind cuts a longer prompt
into pieces of so many tokens.
"""
MAX_RATIO = 0.8  # cache_max_entry_count's default: never plan for a larger share

# CUDA context, cuBLAS handles and loaded kernels of one process on one GPU. With it the one-GPU
# cells of InternVL's published memory table come out between 4% low and 3% high.
CONTEXT = 500 * MIB

# NCCL's buffers, peer mappings and the ViT's uneven spread, taken 2, 3 and 4 times on 2, 4 and 8
# GPUs. Fitted to the eleven cells of that table with several GPUs, which need 1.2 to 4.1 GiB.
PEERS = 850 * MIB

# Kept free, for fragmentation and what is not modelled: the most that still accepts the table's
# tightest cell that ran (40B on one GPU with a cache share of 0.2), to the nearest 256 MiB.
MARGIN = 768 * MIB

_ATTENTION_TOKENS = 4096  # kMaxWorkspaceTokens of unified_attention_layer.h: split-k partials
_GEMM_WORKSPACE = 65 * MIB  # gemm.h: 1 MiB barriers, 32 MiB partials; cublasMMWrapper.h: 32 MiB
# 4-byte arrays of batch x vocabulary: logits, local and gathered (LlamaBatch.cc), and for sampling
# the indices, the ids to sort by, and what cub sorts keys and values into (SamplingLayer.cc).
_LOGITS_COPIES = 6
# int32 arrays of batch x session: input ids, token ids twice, and output ids of three states.
_ID_ARRAYS = 6


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU.

    ``llm``, ``vision`` and ``runtime`` are there before the cache is taken; ``engine`` and
    ``vision_work`` come after it and out of what it left. That order is why a larger ``ratio`` can
    break a server that has started well: the first picture finds no room.

    A plan that does not fit has its bytes all the same, with a negative ``spare``, so that a report
    can show by how much it misses.
    """

    total: int
    llm: int
    vision: int
    runtime: int
    engine: int
    vision_work: int
    kv: int
    ratio: float
    """``cache_max_entry_count``; 0.0 where not even the weights and buffers find room."""

    @property
    def free_after_weights(self) -> int:
        """What ``cache_max_entry_count`` is a share of."""
        return max(0, self.total - self.llm - self.vision - self.runtime)

    @property
    def used(self) -> int:
        """What nvidia-smi will show under load."""
        return self.llm + self.vision + self.runtime + self.kv + self.engine + self.vision_work

    @property
    def spare(self) -> int:
        """Negative when it does not fit; the margin is not counted in."""
        return self.total - self.used

    @property
    def parts(self) -> dict[str, int]:
        """The bytes by what they hold, for tables and pictures."""
        return {
            "language model": self.llm,
            "vision model": self.vision,
            "CUDA and NCCL": self.runtime,
            "KV cache": self.kv,
            "engine buffers": self.engine,
            "vision activations": self.vision_work,
        }


def measure(
    spec: ModelSpec,
    total: int,
    *,
    tp: int,
    batch: int,
    session_len: int,
    tiles: int,
    ratio: float | None = None,
    flash_attention: bool = False,
) -> Memory:
    """Add up one GPU of ``tp``; without ``ratio``, the largest one that leaves the rest its room.

    ``tiles`` go through the ViT in one pass; without ``flash_attention`` it holds their attention
    scores in full. The image for Modal has flash-attn, but for T4s; plans keep that room all the
    same, so that they hold on both, and for an LMDeploy of one's own.
    """
    # ``-(-a // b)`` rounds up: the GPU with the larger share decides whether it fits.
    llm, vision = _share(spec, tp), -(-spec.vision_bytes // tp)
    # ``bit_length`` of 2, 4 and 8 is 2, 3 and 4: the factors that ``PEERS`` was fitted with.
    runtime = CONTEXT + (PEERS * tp.bit_length() if tp > 1 else 0)
    engine = _engine_buffers(spec, tp, batch, session_len)
    work = _vision_work(spec.vit, tiles, flash_attention=flash_attention)
    free = max(0, total - llm - vision - runtime)
    if ratio is None:
        ratio = largest_ratio(free, engine + work + MARGIN)
    return Memory(total, llm, vision, runtime, engine, work, int(free * ratio), ratio)


def largest_ratio(free: int, reserved: int) -> float:
    """The largest cache share, in thousandths, that leaves ``reserved`` bytes of ``free``.

    Rounded down, so that the share on LMDeploy's command line never takes a byte more than planned.

    >>> largest_ratio(free=50_000, reserved=20_000), largest_ratio(free=10, reserved=20)
    (0.6, 0.0)
    """
    if free <= reserved:
        return 0.0
    return min(MAX_RATIO, (free - reserved) * 1000 // free / 1000)


def _share(spec: ModelSpec, tp: int) -> int:
    """TurboMind splits the matrices by heads and MLP columns, the embedding by hidden size and the
    output head by vocabulary (padded to a multiple of tp); norms are on every GPU.
    """
    llm = spec.llm
    vocab = -(-llm.vocab // tp) * tp
    matrices = spec.linear_bytes + _HALF * 2 * vocab * llm.hidden
    return -(-matrices // tp) + _HALF * llm.small_params


def _engine_buffers(spec: ModelSpec, tp: int, batch: int, session_len: int) -> int:
    """Bytes of the buffers that TurboMind takes for ``batch`` sessions, whether they run or not."""
    llm, tokens = spec.llm, PREFILL + batch
    hidden = 2 * tokens * llm.hidden * _HALF  # decoder input and output, not split
    logits = _LOGITS_COPIES * batch * llm.vocab * _FLOAT
    ids = _ID_ARRAYS * batch * session_len * _FLOAT
    work = _attention_buffers(llm, tp, tokens, session_len) + _mlp_buffer(spec, tp, tokens)
    return hidden + logits + ids + work + _GEMM_WORKSPACE


def _attention_buffers(llm: LlmShape, tp: int, tokens: int, session_len: int) -> int:
    """Queries, keys and values of one pass, a session's keys and values in a row, split-k partials.

    A prompt's cached blocks are copied into one contiguous array before its attention, hence
    ``linear_kv``, which grows with the session. Beyond the number of KV heads each GPU holds one
    whole.
    """
    heads, kv_heads = llm.heads // tp, max(1, llm.kv_heads // tp)
    qkv_and_output = tokens * (2 * heads + 2 * kv_heads) * llm.head_dim * _HALF
    linear_kv = 2 * kv_heads * session_len * llm.head_dim * _HALF
    partials = _ATTENTION_TOKENS * heads * (llm.head_dim + 3) * _FLOAT
    return qkv_and_output + linear_kv + partials


def _mlp_buffer(spec: ModelSpec, tp: int, tokens: int) -> int:
    """Gate and up projections; the 4-bit kernels fuse the activation and keep one of them."""
    return tokens * spec.llm.inter // tp * _HALF * (1 if spec.awq else 2)


def _vision_work(vit: VitShape, tiles: int, *, flash_attention: bool) -> int:
    """The peak inside one layer: residual and norm, then the larger of attention and MLP.

    Without flash attention most of it is the scores: tokens squared for each head, held twice.
    """
    stream = tiles * vit.tokens * vit.hidden * _HALF
    scores = 0 if flash_attention else 2 * tiles * vit.heads * vit.tokens**2 * _HALF
    mlp = 2 * tiles * vit.tokens * vit.inter * _HALF
    return 2 * stream + max(4 * stream + scores, mlp)
