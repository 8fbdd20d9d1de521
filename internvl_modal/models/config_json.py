"""The shape of a repository that is not listed, from its ``config.json``.

Separate from ``catalogue``, whose shapes are known to be right: a file from the Hub is input, each
number of it is checked, and the message names the repository and the key. Nothing is read here;
``planning.model_lookup`` fetches the file.
"""

from __future__ import annotations

from collections.abc import Mapping

from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.models.shapes import LlmShape, ModelSpec, VitShape


def spec_from_config(
    repo: str, config: Mapping[str, object], files: Mapping[str, int] | None = None
) -> ModelSpec:
    """Describe a repository that is not listed by its ``config.json`` and file sizes in bytes.

    Raises PlanError when LMDeploy 0.7.3 would not load it.

    ``files`` are the sizes of the repository's files by name; where it has safetensors, loading
    times follow from them and not from the shape. ``.bin`` files beside them hold the same weights
    again. Raises ConfigError for a config without the sections of an InternVL.
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
        # Where ``quantization_config`` lies depends on the tool that quantised: at the top or in
        # the language model's section.
        awq=_is_awq(config) or _is_awq(text),
        context=_number(repo, text, "max_position_embeddings"),
        files_bytes=sum(weights) or None,
    )


# The readers of turbomind/deploy/source_model/internvl.py in LMDeploy 0.7.3.
_READERS = ("InternLM2ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM")
"""Classes of language models, by the name that ``llm_config.architectures`` gives."""


def _check_architecture(repo: str, config: Mapping[str, object]) -> None:
    """Refuse what LMDeploy would refuse after the download: ``-HF`` repositories have transformers'
    own architecture and other names for all weights, 3.5 a language model without a reader.
    """
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
    """The first of ``architectures``; a text for messages where there is none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "an unnamed architecture"


def _section(repo: str, config: Mapping[str, object], key: str) -> Mapping[str, object]:
    section = config.get(key)
    # Repositories of transformers' own kind call them "text_config", and are refused before.
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


def _is_awq(config: Mapping[str, object]) -> bool:
    quantization = config.get("quantization_config")
    return isinstance(quantization, dict) and quantization.get("quant_method") == "awq"
