"""Which engine runs which model, and why another does not.

An engine is named with the version where versions differ in what they load: ``lmdeploy-0.7.3`` is
that version, ``lmdeploy`` is 0.18, ``vllm`` is 0.32. What was not read in an engine's own source or
documentation is not claimed: such a model is refused there, with that as the reason.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from internvl_modal.models.shapes import ModelSpec

__all__ = ["ENGINES", "READERS", "TITLES", "EngineName", "default_engine", "engines_of", "refusal"]

EngineName: TypeAlias = Literal["lmdeploy-0.7.3", "lmdeploy", "vllm"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
"""In the order of preference: the first that runs a model is its default."""
TITLES: dict[EngineName, str] = {
    "lmdeploy-0.7.3": "LMDeploy 0.7.3",
    "lmdeploy": "LMDeploy 0.18",
    "vllm": "vLLM",
}
"""For messages."""

# turbomind/deploy/source_model/internvl.py of 0.7.3 (_readers), turbomind/supported_models.py of
# 0.18, and vLLM's docs/models/supported_models.md.
READERS: dict[EngineName, tuple[str, ...]] = {
    "lmdeploy-0.7.3": ("InternLM2ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM"),
    "lmdeploy": (
        "InternLM2ForCausalLM",
        "InternLM3ForCausalLM",
        "LlamaForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
    ),
    "vllm": (
        "GptOssForCausalLM",
        "InternLM2ForCausalLM",
        "InternLM3ForCausalLM",
        "LlamaForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
    ),
}
"""Classes of language models that each engine reads inside an InternVL."""
_QUANTIZED: dict[EngineName, tuple[str, ...]] = {
    "lmdeploy-0.7.3": ("awq",),
    "lmdeploy": ("awq",),
    "vllm": ("fp8", "mxfp4"),
}
_QWEN3 = ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM")


def refusal(spec: ModelSpec, engine: EngineName) -> str:
    """Say why ``engine`` does not run the model; empty where it does.

    >>> from internvl_modal.models.catalogue import MODELS
    >>> refusal(MODELS["internvl3_5-8b"], "lmdeploy-0.7.3")
    'LMDeploy 0.7.3 has no reader for Qwen3ForCausalLM inside an InternVL'
    """
    title, llm = TITLES[engine], spec.llm.architecture
    if spec.converted and engine == "lmdeploy-0.7.3":
        return f"{title} does not load -HF repositories; the one without -HF has the same weights"
    if llm not in READERS[engine]:
        return f"{title} has no reader for {llm} inside an InternVL"
    if spec.flash and engine != "lmdeploy":
        return f"{title} is not known to load -Flash repositories; LMDeploy 0.18 does"
    if spec.quantization and spec.quantization not in _QUANTIZED[engine]:
        # OpenGVLab's AWQ files on vLLM: vllm#16884, #17734 and #19982 (KeyError while loading).
        return f"{title} is not known to load {spec.quantization.upper()} weights of InternVL"
    if spec.awq and llm in _QWEN3:
        return f"{title} does not run InternVL3.5 in 4 bits, as its list of models says"
    return ""


def engines_of(spec: ModelSpec) -> tuple[EngineName, ...]:
    """The engines that run the model, its default first."""
    return tuple(engine for engine in ENGINES if not refusal(spec, engine))


def default_engine(spec: ModelSpec) -> EngineName:
    """The engine that is taken where nobody names one.

    ``lmdeploy-0.7.3`` for what it loads, InternVL 2.5 and 3; ``lmdeploy`` for InternVL3-9B and 3.5;
    ``vllm`` for what only it runs. It is the last where none does, so that a plan can say why.
    """
    return (*engines_of(spec), ENGINES[-1])[0]
