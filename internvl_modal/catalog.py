"""What is known of each model: its shape as published, everything else computed from it.

The shapes are those of each repository's ``config.json``. Parameter counts, bytes and the cost of
a token in the KV cache follow from them, so that a model which is not listed here needs only its
``config.json`` (:func:`spec_from_config`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from internvl_modal.errors import ConfigError, PlanError

__all__ = [
    "MODELS",
    "LlmShape",
    "ModelSpec",
    "VitShape",
    "find_model",
    "spec_from_config",
    "unknown_model",
]

TILE_TOKENS = 256  # one 448x448 tile after pixel unshuffle: (448 / 14 / 2) ** 2
_AWQ_GROUP = 128  # w4a16 group size of every published AWQ repository
_FP16 = 2


@dataclass(frozen=True)
class LlmShape:
    """A decoder-only LLM with grouped-query attention and a gated MLP."""

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
        """Width of one head."""
        return self.hidden // self.heads

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have one; Qwen 2.5's do."""
        return self.architecture == "Qwen2ForCausalLM"

    @property
    def embedding_params(self) -> int:
        """Of the token embedding alone; the output head has as many (they are not tied)."""
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
    """An InternViT."""

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


VIT_300M = VitShape("InternViT-300M-448px-V2_5", 24, 1024, 4096, 16, qkv_bias=True, qk_norm=False)
VIT_6B = VitShape("InternViT-6B-448px-V2_5", 45, 3200, 12800, 25, qkv_bias=False, qk_norm=True)


@dataclass(frozen=True)
class ModelSpec:
    """One repository. Bytes are as held on GPUs; ``disk_bytes`` is what must be read to load it."""

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
        """The two layers between ViT and LLM, which LMDeploy loads with the ViT."""
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
        """4 bits a weight plus one fp16 scale and one fp16 zero a group of 128 under AWQ."""
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
        """
        per_head = 2 * self.llm.head_dim * (quant_policy or 16) // 8
        if quant_policy:
            per_head += 2 * 2 * _FP16
        return self.llm.layers * self.llm.kv_heads * per_head


# (layers, hidden, intermediate, heads, kv heads, vocabulary) of each repository's llm_config.
# The vocabulary is the base model's with InternVL's image and box tokens added.
_INTERNLM = "InternLM2ForCausalLM"
_QWEN_05B = LlmShape("Qwen2.5-0.5B", 24, 896, 4864, 14, 2, 151674)
_QWEN_15B = LlmShape("Qwen2.5-1.5B", 28, 1536, 8960, 12, 2, 151674)
_QWEN_3B = LlmShape("Qwen2.5-3B", 36, 2048, 11008, 16, 2, 151674)
_QWEN_7B = LlmShape("Qwen2.5-7B", 28, 3584, 18944, 28, 4, 151674)
_QWEN_14B = LlmShape("Qwen2.5-14B", 48, 5120, 13824, 40, 8, 151674)
_QWEN_32B = LlmShape("Qwen2.5-32B", 64, 5120, 27648, 40, 8, 151674)
_QWEN_72B = LlmShape("Qwen2.5-72B", 80, 8192, 29568, 64, 8, 151674)
_INTERNLM_2B = LlmShape("internlm2_5-1_8b-chat", 24, 2048, 8192, 16, 8, 92553, _INTERNLM)
_INTERNLM_7B = LlmShape("internlm2_5-7b-chat", 32, 4096, 14336, 32, 8, 92553, _INTERNLM)
_INTERNLM_20B = LlmShape("internlm2_5-20b-chat", 48, 6144, 16384, 48, 8, 92553, _INTERNLM)

# OpenGVLab's own files are MIT; the LLM inside may ask for more, and is named where it does.
_MIT = "MIT"
_APACHE = "MIT, with Qwen2.5 under Apache-2.0"
_QWEN = "Qwen licence (Qwen2.5-72B)"
_RESEARCH = "MIT, with Qwen2.5-3B under the Qwen research licence (not commercial)"

_V25_AWQ = ("4B", "8B", "26B", "38B", "78B")
_V25 = (
    ("1B", _QWEN_05B, VIT_300M, _APACHE),
    ("2B", _INTERNLM_2B, VIT_300M, _MIT),
    ("4B", _QWEN_3B, VIT_300M, _RESEARCH),
    ("8B", _INTERNLM_7B, VIT_300M, _MIT),
    ("26B", _INTERNLM_20B, VIT_6B, _MIT),
    ("38B", _QWEN_32B, VIT_6B, _APACHE),
    ("78B", _QWEN_72B, VIT_6B, _QWEN),
)
# InternVL3-9B and 3.5 are left out: their LLMs are InternLM3, Qwen3 and others, for which LMDeploy
# 0.7.3's InternVL reader (turbomind/deploy/source_model/internvl.py) has no entry.
_UNREADABLE = ("internvl3-9b", "internvl3_5", "internvl3.5")
_V3 = (
    ("1B", _QWEN_05B, VIT_300M, _APACHE),
    ("2B", _QWEN_15B, VIT_300M, _APACHE),
    ("8B", _QWEN_7B, VIT_300M, _APACHE),
    ("14B", _QWEN_14B, VIT_300M, _APACHE),
    ("38B", _QWEN_32B, VIT_6B, _APACHE),
    ("78B", _QWEN_72B, VIT_6B, _QWEN),
)
_GGUF = {
    "OpenGVLab/InternVL2_5-1B": "ggml-org/InternVL2_5-1B-GGUF",
    "OpenGVLab/InternVL2_5-4B": "ggml-org/InternVL2_5-4B-GGUF",
    "OpenGVLab/InternVL3-1B": "ggml-org/InternVL3-1B-Instruct-GGUF",
    "OpenGVLab/InternVL3-2B": "ggml-org/InternVL3-2B-Instruct-GGUF",
    "OpenGVLab/InternVL3-8B": "ggml-org/InternVL3-8B-Instruct-GGUF",
    "OpenGVLab/InternVL3-14B": "ggml-org/InternVL3-14B-Instruct-GGUF",
}


def _family(
    prefix: str, rows: tuple[tuple[str, LlmShape, VitShape, str], ...], awq: tuple[str, ...]
) -> list[ModelSpec]:
    family = []
    for size, llm, vit, licence in rows:
        repo = f"OpenGVLab/{prefix}-{size}"
        spec = ModelSpec(f"{prefix}-{size}".lower(), repo, llm, vit, licence, gguf=_GGUF.get(repo))
        family.append(spec)
        if size in awq:
            family.append(_variant(spec, "-AWQ", awq=True))
        if prefix == "InternVL2_5":
            family.append(_variant(spec, "-MPO"))
    return family


def _variant(spec: ModelSpec, suffix: str, *, awq: bool = False) -> ModelSpec:
    name, repo = spec.name + suffix.lower(), spec.repo + suffix
    return replace(spec, name=name, repo=repo, awq=awq, gguf=None)


MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in _family("InternVL2_5", _V25, _V25_AWQ)
    + _family("InternVL3", _V3, tuple(size for size, *_ in _V3))
}


def find_model(name: str) -> ModelSpec | None:
    """Look a short name or a repository id up, whatever its case; None if it is not listed."""
    wanted = name.strip().lower()
    return MODELS.get(wanted.removeprefix("opengvlab/"))


def unknown_model(name: str) -> ConfigError:
    """Say that ``name`` is neither listed nor a repository: why, or what may be meant."""
    wanted, where = name.strip().lower(), "`internvl-modal plan --list` shows the catalog"
    message, near = f"unknown model {name!r}", get_close_matches(wanted, MODELS, n=3)
    if wanted.startswith(_UNREADABLE):
        message += ": LMDeploy 0.7.3 cannot load InternVL3-9B and InternVL3.5"
    elif near:
        where = f"did you mean {', '.join(near)}? {where}"
    return ConfigError(message, hint=f"{where}; another repository of InternVL is owner/name")


def spec_from_config(
    repo: str, config: Mapping[str, object], files: Mapping[str, int] | None = None
) -> ModelSpec:
    """Describe a repository that is not listed by its ``config.json`` and file sizes in bytes.

    Raises PlanError when LMDeploy 0.7.3 would not load it.
    """
    _check_architecture(repo, config)
    text, vision = _section(repo, config, "llm_config"), _section(repo, config, "vision_config")
    llm = LlmShape(
        base=str(text.get("_name_or_path") or _architecture(text)),
        layers=_number(repo, text, "num_hidden_layers"),
        hidden=_number(repo, text, "hidden_size"),
        inter=_number(repo, text, "intermediate_size"),
        heads=_number(repo, text, "num_attention_heads"),
        kv_heads=_number(repo, text, "num_key_value_heads"),
        vocab=_number(repo, text, "vocab_size"),
        architecture=_architecture(text),
    )
    vit = VitShape(
        base=str(vision.get("_name_or_path") or "InternViT"),
        layers=_number(repo, vision, "num_hidden_layers"),
        hidden=_number(repo, vision, "hidden_size"),
        inter=_number(repo, vision, "intermediate_size"),
        heads=_number(repo, vision, "num_attention_heads"),
        qkv_bias=bool(vision.get("qkv_bias")),
        qk_norm=bool(vision.get("qk_normalization")),
        image_size=_number(repo, vision, "image_size"),
        patch_size=_number(repo, vision, "patch_size"),
    )
    weights = [size for name, size in (files or {}).items() if name.endswith(".safetensors")]
    return ModelSpec(
        name=repo.rsplit("/", 1)[-1].lower(),
        repo=repo,
        llm=llm,
        vit=vit,
        licence="see the repository",
        awq=_is_awq(config) or _is_awq(text),
        context=_number(repo, text, "max_position_embeddings"),
        files_bytes=sum(weights) or None,
    )


# The readers of turbomind/deploy/source_model/internvl.py in LMDeploy 0.7.3.
_READERS = ("InternLM2ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM")


def _check_architecture(repo: str, config: Mapping[str, object]) -> None:
    if _architecture(config) != "InternVLChatModel":
        raise PlanError(
            f"{repo}: {_architecture(config)} is not an InternVL model that LMDeploy 0.7.3 loads",
            hint="use the repository without -HF in its name, or one of InternVL 2.5 and 3",
        )
    llm = _architecture(_section(repo, config, "llm_config"))
    if llm not in _READERS:
        raise PlanError(
            f"{repo}: LMDeploy 0.7.3 has no TurboMind reader for its language model ({llm})",
            hint=f"it reads {', '.join(_READERS)}",
        )


def _architecture(config: Mapping[str, object]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "an unnamed architecture"


def _section(repo: str, config: Mapping[str, object], key: str) -> Mapping[str, object]:
    section = config.get(key)
    if not isinstance(section, dict):
        raise ConfigError(
            f"{repo}: its config.json has no {key}", hint="is this an InternVL model?"
        )
    return section


def _number(repo: str, section: Mapping[str, object], key: str) -> int:
    value = section.get(key)
    if not isinstance(value, int) or value <= 0:
        raise ConfigError(f"{repo}: config.json says {key} = {value!r}, not a positive integer")
    return value


def _is_awq(config: Mapping[str, object]) -> bool:
    quantization = config.get("quantization_config")
    return isinstance(quantization, dict) and quantization.get("quant_method") == "awq"
