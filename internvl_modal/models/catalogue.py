"""What is known of each model: its shape as published, everything else computed from it.

The shapes are those of each repository's ``config.json``. Parameter counts, bytes and the cost of
a token in the KV cache follow from them, so that a model which is not listed here needs only its
``config.json`` (:func:`spec_from_config`).

A new InternVL is a row in ``_V25`` or ``_V3``, with an ``LlmShape`` where its language model is
new. The variants (``-AWQ``, ``-MPO``) follow from the family, for they change bytes and not shapes.

>>> find_model("OpenGVLab/InternVL2_5-8B").llm.head_dim
128
>>> find_model("internvl2_5-78b-awq").awq
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from internvl_modal.errors import ConfigError
from internvl_modal.models.shapes import LlmShape, ModelSpec, VitShape

__all__ = ["MODELS", "find_model", "unknown_model"]


VIT_300M = VitShape("InternViT-300M-448px-V2_5", 24, 1024, 4096, 16, qkv_bias=True, qk_norm=False)
VIT_6B = VitShape("InternViT-6B-448px-V2_5", 45, 3200, 12800, 25, qkv_bias=False, qk_norm=True)


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
# Repositories with files for llama.cpp. ggml-org is the organisation of llama.cpp's authors; the
# names of InternVL3 have "-Instruct" there and nowhere else.
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
    """A family's repositories in the order of their sizes, each followed by its variants.

    OpenGVLab published ``-MPO`` for every size of 2.5 and for none of 3, which is trained so
    already.
    """
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
    """The same shape under another repository; there are GGUF files of the plain ones only."""
    name, repo = spec.name + suffix.lower(), spec.repo + suffix
    return replace(spec, name=name, repo=repo, awq=awq, gguf=None)


MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in _family("InternVL2_5", _V25, _V25_AWQ)
    + _family("InternVL3", _V3, tuple(size for size, *_ in _V3))
}
"""By short name, in lower case: what ``plan --list`` shows and what a served model is called."""


def find_model(name: str) -> ModelSpec | None:
    """Look a short name or a repository id up, whatever its case; None if it is not listed.

    Only OpenGVLab's own repositories count: somebody else's fine-tune of the same name may have
    another shape, and its ``config.json`` is read instead.
    """
    wanted = name.strip().lower()
    return MODELS.get(wanted.removeprefix("opengvlab/"))


def unknown_model(name: str) -> ConfigError:
    """Say that ``name`` is neither listed nor a repository: why, or what may be meant.

    Returned and not raised, so that the caller's traceback ends where the name was given.
    """
    wanted, where = name.strip().lower(), "`internvl-modal plan --list` shows the catalog"
    message, near = f"unknown model {name!r}", get_close_matches(wanted, MODELS, n=3)
    if wanted.startswith(_UNREADABLE):
        message += ": LMDeploy 0.7.3 cannot load InternVL3-9B and InternVL3.5"
    elif near:
        where = f"did you mean {', '.join(near)}? {where}"
    return ConfigError(message, hint=f"{where}; another repository of InternVL is owner/name")
