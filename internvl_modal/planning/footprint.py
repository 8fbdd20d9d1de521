"""What an engine puts on each GPU beside the KV cache, and what all engines have in common there.

Every byte is of one GPU; ``tp`` is the number of GPUs that share the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvl_modal.models.shapes import LlmShape, ModelSpec, VitShape

__all__ = ["FLOAT", "HALF", "Footprint", "Work", "attention_share", "vision_share", "vision_work"]

HALF = 2
FLOAT = 4


@dataclass(frozen=True)
class Work:
    """What a server is asked for: it decides about its buffers.

    ``tiles`` go through the ViT in one pass; without ``flash_attention`` it holds their attention
    scores in full. The image for Modal has flash-attn, but for T4s; plans keep that room all the
    same, so that they hold on both, and for an LMDeploy of one's own.
    """

    tp: int
    batch: int
    session_len: int
    tiles: int
    flash_attention: bool = False


@dataclass(frozen=True)
class Footprint:
    """Bytes on each GPU: of the weights, and of the buffers that come after the KV cache."""

    llm: int
    vision: int
    engine: int
    vision_work: int


def attention_share(llm: LlmShape, tp: int) -> int:
    """Parameters of one layer's attention on each GPU; key-value heads are repeated where there are
    more GPUs than heads.
    """
    heads, kv_heads = -(-llm.heads // tp), max(1, -(-llm.kv_heads // tp))
    return llm.hidden * llm.head_dim * 2 * (heads + kv_heads)


def vision_share(spec: ModelSpec, tp: int, *, projector: int) -> int:
    """Bytes of a tensor-parallel vision model on each GPU, its projector split ``projector`` ways.

    Both engines that have one (LMDeploy from 0.16 on, vLLM) share out the MLP, and the attention
    only where the heads divide: InternViT-6B has 25, so that its attention is whole on every GPU.
    Sources: LMDeploy 0.18, ``turbomind/models/internvl.py`` (attn_tp); vLLM 0.32,
    ``model_executor/models/intern_vit.py`` (disable_tp).
    """
    vit = spec.vit
    attention = vit.attention_params // (1 if vit.heads % tp else tp)
    rest = vit.params - vit.attention_params - vit.mlp_params + spec.flash_params
    split = attention + vit.mlp_params // tp + spec.projector_params // projector
    return HALF * (split + rest)


def vision_work(vit: VitShape, tiles: int, *, flash_attention: bool) -> int:
    """The peak inside one layer: residual and norm, then the larger of attention and MLP.

    Without flash attention most of it is the scores: tokens squared for each head, held twice.
    """
    stream = tiles * vit.tokens * vit.hidden * HALF
    scores = 0 if flash_attention else 2 * tiles * vit.heads * vit.tokens**2 * HALF
    mlp = 2 * tiles * vit.tokens * vit.inter * HALF
    return 2 * stream + max(4 * stream + scores, mlp)
