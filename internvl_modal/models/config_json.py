"""The shape of a repository that is not listed, from its ``config.json``.

Separate from ``catalogue``, whose shapes are known to be right: a file from the Hub is input, each
number of it is checked, and the message names the repository and the key. Nothing is read here;
``planning.model_lookup`` fetches the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.models.shapes import Experts, LlmShape, ModelSpec, Quantization, VitShape


def spec_from_config(
    repo: str, config: Mapping[str, object], files: Mapping[str, int] | None = None
) -> ModelSpec:
    """Describe a repository that is not listed by its ``config.json`` and file sizes in bytes.

    Which engine runs it is ``support``'s to say. ``files`` are the sizes of the repository's files
    by name; where it has safetensors, loading times follow from them and not from the shape.
    ``.bin`` files beside them hold the same weights again. Raises PlanError for what is no
    InternVL, ConfigError for a config without the sections of one.
    """
    architecture = _architecture(config)
    if architecture not in _SECTIONS:
        raise PlanError(
            f"{repo}: {architecture} is not an InternVL model that is known here",
            hint="use a repository of InternVL 2.5, 3 or 3.5, or a model trained from one",
        )
    text_key = _SECTIONS[architecture]
    text, vision = _section(repo, config, text_key), _section(repo, config, "vision_config")
    weights = [size for name, size in (files or {}).items() if name.endswith(".safetensors")]
    return ModelSpec(
        name=repo.rsplit("/", 1)[-1].lower(),
        repo=repo,
        llm=_llm(repo, text),
        vit=_vit(repo, vision),
        licence="see the repository",
        # Where ``quantization_config`` lies depends on the tool that quantised: at the top or in
        # the language model's section.
        quantization=_quantization(repo, config) or _quantization(repo, text),
        context=_number(repo, text, "max_position_embeddings"),
        files_bytes=sum(weights) or None,
        converted=text_key == "text_config",
        # What LMDeploy asks for (pytorch/models/internvl.py): the class is the plain ones'.
        flash=config.get("flash_mode") is not None,
    )


_SECTIONS = {
    "InternVLChatModel": "llm_config",
    "InternVLForConditionalGeneration": "text_config",  # transformers' own, repositories with -HF
}
"""Where the language model's shape lies, by the class of the whole."""
_CLASSES = {
    "internlm2": "InternLM2ForCausalLM",
    "internlm3": "InternLM3ForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
"""By ``model_type``, which is all that a ``text_config`` tells."""


def _llm(repo: str, text: Mapping[str, object]) -> LlmShape:
    heads, hidden = (_number(repo, text, key) for key in ("num_attention_heads", "hidden_size"))
    experts = _experts(repo, text)
    architecture = _architecture(text)
    if not isinstance(text.get("architectures"), list):
        architecture = _CLASSES.get(str(text.get("model_type")), architecture)
    return LlmShape(
        base=str(text.get("_name_or_path") or architecture),
        layers=_number(repo, text, "num_hidden_layers"),
        hidden=hidden,
        inter=_number(repo, text, "intermediate_size"),
        heads=heads,
        kv_heads=_number(repo, text, "num_key_value_heads"),
        head_dim=_number(repo, text, "head_dim") if text.get("head_dim") else hidden // heads,
        vocab=_number(repo, text, "vocab_size"),
        architecture=architecture,
        experts=experts,
        tied=text.get("tie_word_embeddings") is True,
    )


def _experts(repo: str, text: Mapping[str, object]) -> Experts | None:
    """None for a dense model; Qwen3's and GPT-OSS's configs have names of their own."""
    key = next((key for key in ("num_experts", "num_local_experts") if text.get(key)), None)
    if key is None:
        return None
    width = "moe_intermediate_size" if "moe_intermediate_size" in text else "intermediate_size"
    return Experts(
        _number(repo, text, key),
        _number(repo, text, "num_experts_per_tok"),
        _number(repo, text, width),
    )


def _vit(repo: str, vision: Mapping[str, object]) -> VitShape:
    # transformers' own format calls them otherwise, and has sizes as pairs.
    return VitShape(
        base=str(vision.get("_name_or_path") or "InternViT"),
        layers=_number(repo, vision, "num_hidden_layers"),
        hidden=_number(repo, vision, "hidden_size"),
        inter=_number(repo, vision, "intermediate_size"),
        heads=_number(repo, vision, "num_attention_heads"),
        qkv_bias=bool(vision.get("qkv_bias", vision.get("attention_bias"))),
        qk_norm=bool(vision.get("qk_normalization", vision.get("use_qk_norm"))),
        image_size=_side(repo, vision, "image_size"),
        patch_size=_side(repo, vision, "patch_size"),
    )


def _architecture(config: Mapping[str, object]) -> str:
    """The first of ``architectures``; a text for messages where there is none."""
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
    """A positive integer, or ConfigError: a model of zero layers would plan as one that fits
    anywhere.
    """
    value = section.get(key)
    # Some configs hold floats or strings where a tool wrote them by hand; they are refused and not
    # rounded, since a wrong shape is a wrong bill.
    if not isinstance(value, int) or value <= 0:
        raise ConfigError(f"{repo}: config.json says {key} = {value!r}, not a positive integer")
    return value


def _side(repo: str, section: Mapping[str, object], key: str) -> int:
    """A length in pixels, which some formats write as a pair of the same two."""
    value = section.get(key)
    if isinstance(value, list) and len(set(map(str, value))) == 1:
        section = {key: value[0]}
    return _number(repo, section, key)


def _quantization(repo: str, config: Mapping[str, object]) -> Quantization | None:
    """How the matrices are stored. Raises PlanError for a way whose bytes are not known here."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return None
    method = quantization.get("quant_method")
    # compressed-tensors (llm-compressor) writes the format beside it: float-quantized is FP8.
    if method == "compressed-tensors" and quantization.get("format") == "float-quantized":
        return "fp8"
    for known in get_args(Quantization):
        if method == known:
            return cast(Quantization, known)
    raise PlanError(
        f"{repo}: weights quantised by {method!r} are not known here",
        hint=f"what is known: {', '.join(get_args(Quantization))}, or a repository in 16 bits",
    )
