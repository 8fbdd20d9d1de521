"""Shapes of models, and what follows from them: parameters, bytes, the cost of a token.

The formulas are those of the published architectures (Qwen2, InternLM2, InternViT) and are checked
in the tests against the sizes of the published files. Counts are of parameters, ``bytes`` of bytes.

>>> shape = LlmShape("an example", layers=2, hidden=256, inter=512, heads=4, kv_heads=2, vocab=1000)
>>> shape.head_dim, shape.mlp_params
(64, 393216)
"""

from __future__ import annotations

from dataclasses import dataclass

TILE_TOKENS = 256  # one 448x448 tile after pixel unshuffle: (448 / 14 / 2) ** 2


_AWQ_GROUP = 128  # w4a16 group size of every published AWQ repository


_FP16 = 2


@dataclass(frozen=True)
class LlmShape:
    """A decoder-only LLM with grouped-query attention and a gated MLP.

    ``inter`` is the width of the MLP, ``vocab`` that of the embedding with InternVL's own tokens.
    ``architecture`` is the class in ``config.json`` and decides about biases and readers.
    """

    base: str
    layers: int
    hidden: int
    inter: int
    heads: int
    kv_heads: int
    vocab: int
    architecture: str = "Qwen2ForCausalLM"

    @property
    def head_dim(self) -> int:
        """Width of one head.

        True for the generations that LMDeploy 0.7.3 loads; Qwen3's heads are 128 wide whatever the
        hidden size is, and its reader is missing there anyway.
        """
        return self.hidden // self.heads

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have one; Qwen 2.5's do."""
        return self.architecture == "Qwen2ForCausalLM"

    @property
    def embedding_params(self) -> int:
        """Of the token embedding alone; the output head has as many (they are not tied).

        Tied embeddings are counted twice all the same: TurboMind keeps a copy for the output head.
        """
        return self.vocab * self.hidden

    @property
    def linear_params(self) -> int:
        """Of the matrices in the layers: what AWQ quantises."""
        qkv = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim
        return self.layers * (qkv + self.heads * self.head_dim * self.hidden + self.mlp_params)

    @property
    def mlp_params(self) -> int:
        """Of one layer's gate, up and down projections."""
        return 3 * self.hidden * self.inter

    @property
    def small_params(self) -> int:
        """Norms and biases."""
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        return self.layers * (2 * self.hidden + bias) + self.hidden

    @property
    def params(self) -> int:
        """All of them."""
        return self.linear_params + self.small_params + 2 * self.embedding_params


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
    def params(self) -> int:
        """All of them."""
        h = self.hidden
        attention = 4 * h * h + h + (3 * h if self.qkv_bias else 0) + (2 * h if self.qk_norm else 0)
        mlp = 2 * h * self.inter + self.inter + h
        norms_and_scales = (4 if self.qk_norm else 6) * h  # RMSNorm has no bias, LayerNorm has
        patches = 3 * self.patch_size**2 * h + h
        return self.layers * (attention + mlp + norms_and_scales) + patches + (self.tokens + 1) * h


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
    awq: bool = False
    context: int = 32768
    gguf: str | None = None
    files_bytes: int | None = None

    @property
    def projector_params(self) -> int:
        """The two layers between ViT and LLM, which LMDeploy loads with the ViT.

        Four neighbouring patches are joined (pixel unshuffle), hence four times the ViT's width.
        """
        merged = 4 * self.vit.hidden
        return 2 * merged + (merged + 1) * self.llm.hidden + (self.llm.hidden + 1) * self.llm.hidden

    @property
    def vision_params(self) -> int:
        """Of what LMDeploy loads as the vision model."""
        return self.vit.params + self.projector_params

    @property
    def params(self) -> int:
        """All of them."""
        return self.llm.params + self.vision_params

    @property
    def vision_bytes(self) -> int:
        """The ViT and the projector stay in 16 bits in AWQ repositories too."""
        return _FP16 * self.vision_params

    @property
    def linear_bytes(self) -> int:
        """4 bits a weight plus one fp16 scale and one fp16 zero a group of 128 under AWQ.

        Both repeat for each column, which is 0.25 bits a weight on top of the 4.
        """
        if self.awq:
            return self.llm.linear_params // 2 + 2 * _FP16 * self.llm.linear_params // _AWQ_GROUP
        return _FP16 * self.llm.linear_params

    @property
    def llm_bytes(self) -> int:
        """Embedding, output head and norms stay in 16 bits under AWQ."""
        return self.linear_bytes + _FP16 * (self.llm.small_params + 2 * self.llm.embedding_params)

    @property
    def disk_bytes(self) -> int:
        """Of the weight files, computed where their sizes are not known."""
        return self.files_bytes or self.llm_bytes + self.vision_bytes

    def kv_bytes_per_token(self, quant_policy: int = 0) -> int:
        """Keys and values of all layers; 8 or 4 bits add an fp16 scale and zero a head and token.

        The layout is TurboMind's (``kernels/attention/block.h``: k_data, v_data, k_param, v_param).

        ``quant_policy`` is LMDeploy's: 0, 8 or 4. Of all GPUs together; each holds its share of
        heads.

        >>> from internvl_modal.models.catalogue import MODELS
        >>> MODELS["internvl2_5-78b"].kv_bytes_per_token()
        327680
        """
        per_head = 2 * self.llm.head_dim * (quant_policy or 16) // 8
        if quant_policy:
            per_head += 2 * 2 * _FP16
        return self.llm.layers * self.llm.kv_heads * per_head
