"""Shapes of models, and what follows from them: parameters, bytes, the cost of a token.

The formulas are those of the published architectures (Qwen2, Qwen3 and its mixture of experts,
InternLM2, GPT-OSS, InternViT) and are checked in the tests against the sizes of the published
files. Counts are of parameters, ``bytes`` of bytes.

>>> shape = LlmShape("an example", 2, 256, 512, heads=4, kv_heads=2, head_dim=64, vocab=1000)
>>> shape.linear_params, shape.params
(1179648, 1693952)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

TILE_TOKENS = 256  # one 448x448 tile after pixel unshuffle: (448 / 14 / 2) ** 2

Quantization: TypeAlias = Literal["awq", "fp8", "mxfp4"]
"""How the language model's matrices are stored; the ViT and the embeddings stay in 16 bits.

awq: 4 bits, and a 16-bit scale and zero for each group of 128. fp8: 8 bits and a scale a row. mxfp4
(of experts only): 4 bits, and an 8-bit scale for each block of 32.
"""
_BITS: dict[Quantization | None, float] = {
    None: 16,
    "awq": 4 + 2 * 16 / 128,  # the w4a16 group size of every published AWQ repository
    "fp8": 8,
    "mxfp4": 4 + 8 / 32,
}

_FP16 = 2


@dataclass(frozen=True)
class Experts:
    """The experts of a layer: how many, how many of them work on a token, and their width."""

    count: int
    active: int
    inter: int

    def read(self, tokens: int) -> float:
        """How many of them a step of ``tokens`` tokens needs on average, if all are as likely.

        >>> Experts(128, 8, 768).read(1), round(Experts(128, 8, 768).read(64))
        (8.0, 126)
        """
        return self.count * (1 - (1 - self.active / self.count) ** tokens)


@dataclass(frozen=True)
class LlmShape:
    """A decoder-only LLM with grouped-query attention and a gated MLP, or experts in its place.

    ``inter`` is the width of the MLP (without meaning where there are ``experts``), ``head_dim``
    that of one head: Qwen3's are 128 wide whatever the hidden size is. ``vocab`` is that of the
    embedding with InternVL's own tokens, ``architecture`` the class in ``config.json``.
    """

    base: str
    layers: int
    hidden: int
    inter: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    architecture: str = "Qwen2ForCausalLM"
    experts: Experts | None = None
    tied: bool = False
    """Whether the files hold one matrix for the embedding and the output head.

    None of the published InternVLs': Qwen's small models are tied, and InternVL's copies of them
    are not.
    """

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have one; those of Qwen 2.5 and GPT-OSS do."""
        return self.architecture in ("Qwen2ForCausalLM", "GptOssForCausalLM")

    @property
    def qk_norm(self) -> bool:
        """Whether each head's queries and keys are normalised, as Qwen3's are."""
        return self.architecture.startswith("Qwen3")

    @property
    def embedding_params(self) -> int:
        """Of the token embedding alone; the output head has as many."""
        return self.vocab * self.hidden

    @property
    def attention_params(self) -> int:
        """Of one layer's matrices."""
        qkv = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim
        return qkv + self.heads * self.head_dim * self.hidden

    @property
    def mlp_params(self) -> int:
        """Of one layer's gate, up and down projections, of all experts."""
        if self.experts:
            return self.experts.count * 3 * self.hidden * self.experts.inter
        return 3 * self.hidden * self.inter

    @property
    def linear_params(self) -> int:
        """Of the matrices in the layers: what is quantised, and what lies in memory."""
        return self.layers * (self.attention_params + self.mlp_params)

    @property
    def active_params(self) -> int:
        """Of the matrices that one token is multiplied with: with experts, not all."""
        mlp = self.mlp_params
        if self.experts:
            mlp = mlp * self.experts.active // self.experts.count
        return self.layers * (self.attention_params + mlp)

    @property
    def small_params(self) -> int:
        """Norms, biases, and what chooses the experts: never split, never quantised."""
        each = 2 * self.hidden
        if self.qkv_bias:
            each += (self.heads + 2 * self.kv_heads) * self.head_dim
        if self.qk_norm:
            each += 2 * self.head_dim
        if self.experts:
            each += self.experts.count * self.hidden
            if self.architecture == "GptOssForCausalLM":  # sinks, and a bias on everything else
                bias = 2 * self.experts.inter + self.hidden + 1
                each += self.heads + self.hidden + self.experts.count * bias
        return self.layers * each + self.hidden

    @property
    def params(self) -> int:
        """All of them, as they are stored."""
        return self.linear_params + self.small_params + (2 - self.tied) * self.embedding_params


@dataclass(frozen=True)
class VitShape:
    """An InternViT: 300M or 6B, for pictures of ``image_size`` pixels a side.

    The 6B one normalises queries and keys and has no bias on them, the 300M one has the bias and no
    such norms; the rest of both is the same.
    """

    base: str
    layers: int
    hidden: int
    inter: int
    heads: int
    qkv_bias: bool
    qk_norm: bool
    image_size: int = 448
    patch_size: int = 14

    @property
    def tokens(self) -> int:
        """Of one tile inside the ViT: its patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def attention_params(self) -> int:
        """Of all layers; servers keep them whole on each GPU where the heads do not divide."""
        h = self.hidden
        each = 4 * h * h + h + (3 * h if self.qkv_bias else 0) + (2 * h if self.qk_norm else 0)
        return self.layers * each

    @property
    def mlp_params(self) -> int:
        """Of all layers."""
        return self.layers * (2 * self.hidden * self.inter + self.inter + self.hidden)

    @property
    def params(self) -> int:
        """All of them."""
        h = self.hidden
        norms_and_scales = (4 if self.qk_norm else 6) * h  # RMSNorm has no bias, LayerNorm has
        patches = 3 * self.patch_size**2 * h + h + (self.tokens + 1) * h
        return self.attention_params + self.mlp_params + self.layers * norms_and_scales + patches


@dataclass(frozen=True)
class ModelSpec:
    """One repository. Bytes are as held on GPUs; ``disk_bytes`` is what must be read to load it.

    ``context`` is the number of positions, in tokens; ``gguf`` the repository with files for
    llama.cpp, None where there is none. ``files_bytes`` is given for repositories read from the
    Hub.
    """

    name: str
    repo: str
    llm: LlmShape
    vit: VitShape
    licence: str
    quantization: Quantization | None = None
    context: int = 32768
    gguf: str | None = None
    files_bytes: int | None = None
    converted: bool = False
    """In the format of transformers' own InternVL, as ``-HF`` repositories are."""
    flash: bool = False
    """Has the modules that compress tiles of little detail, as ``-Flash`` repositories do."""

    @property
    def awq(self) -> bool:
        """Whether its language model is in 4 bits."""
        return self.quantization == "awq"

    @property
    def projector_params(self) -> int:
        """The two layers between ViT and LLM, which LMDeploy loads with the ViT.

        Four neighbouring patches are joined (pixel unshuffle), hence four times the ViT's width.
        """
        merged = 4 * self.vit.hidden
        return 2 * merged + (merged + 1) * self.llm.hidden + (self.llm.hidden + 1) * self.llm.hidden

    @property
    def flash_params(self) -> int:
        """The second projector, the pooling and the gate of a Flash model.

        As LMDeploy 0.18 builds them (``pytorch/models/internvl.py``: ``mlp2``,
        ``CrossAttentionPooling``, ``Gating``).
        """
        if not self.flash:
            return 0
        v, wide = self.vit.hidden, 2 * self.llm.hidden
        projector = 32 * v + (16 * v + 1) * wide + (wide + 1) * (wide + self.llm.hidden)
        pooling = v + 4 * (4 * v * v + 6 * v)
        gate = 4 * (8 * v * v + 7 * v) + 4 * v + 2
        return projector + pooling + gate

    @property
    def vision_params(self) -> int:
        """Of what LMDeploy loads as the vision model."""
        return self.vit.params + self.projector_params + self.flash_params

    @property
    def params(self) -> int:
        """All of them."""
        return self.llm.params + self.vision_params

    @property
    def vision_bytes(self) -> int:
        """The ViT and the projector stay in 16 bits in quantised repositories too."""
        return _FP16 * self.vision_params

    @property
    def linear_bytes(self) -> int:
        """Of the matrices in the layers, scales and zeros included."""
        return int(self.layer_bytes(self.llm.attention_params, self.llm.mlp_params))

    def layer_bytes(self, attention_params: float, mlp_params: float) -> float:
        """Of the matrices of all layers, where each has so many parameters."""
        bits = _BITS[self.quantization]
        attention_bits = 16 if self.quantization == "mxfp4" else bits
        return self.llm.layers * (attention_params * attention_bits + mlp_params * bits) / 8

    def read_bytes(self, tokens: int) -> float:
        """Of the language model that a step of ``tokens`` tokens reads: with experts, not all."""
        mlp: float = self.llm.mlp_params
        if self.llm.experts:
            mlp = mlp * self.llm.experts.read(tokens) / self.llm.experts.count
        unread = self.linear_bytes - self.layer_bytes(self.llm.attention_params, mlp)
        return self.llm_bytes - unread

    @property
    def llm_bytes(self) -> int:
        """Embedding, output head and norms stay in 16 bits in quantised repositories.

        Both matrices are counted where the files hold one: TurboMind keeps a copy.
        """
        return self.linear_bytes + _FP16 * (self.llm.small_params + 2 * self.llm.embedding_params)

    @property
    def disk_bytes(self) -> int:
        """Of the weight files, computed where their sizes are not known."""
        once = _FP16 * self.llm.embedding_params if self.llm.tied else 0
        return self.files_bytes or self.llm_bytes + self.vision_bytes - once

    def kv_bytes_per_token(self, quant_policy: int = 0, *, scaled: bool = True) -> int:
        """Keys and values of all layers; 8 or 4 bits add an fp16 scale and zero a head and token.

        That layout is TurboMind's (``kernels/attention/block.h``: k_data, v_data, k_param,
        v_param); vLLM's fp8 has a scale a layer, ``scaled=False``.

        ``quant_policy`` is LMDeploy's: 0, 8 or 4. Of all GPUs together; each holds its share of
        heads. GPT-OSS needs less: every second layer of its looks back 128 tokens only.

        >>> from internvl_modal.models.catalogue import MODELS
        >>> MODELS["internvl2_5-78b"].kv_bytes_per_token()
        327680
        """
        per_head = 2 * self.llm.head_dim * (quant_policy or 16) // 8
        if quant_policy and scaled:
            per_head += 2 * 2 * _FP16
        return self.llm.layers * self.llm.kv_heads * per_head
