"""The models that are known by name: one row a size, the variants by rule.

A new InternVL is a row in ``_ROWS``, with a row in ``llms`` where its language model is new and one
in ``quality`` where figures were published. Variants change bytes, format or training, and no
shape. Which engine runs one is worked out in ``support``.

>>> find_model("OpenGVLab/InternVL2_5-8B").llm.head_dim
128
>>> find_model("internvl3_5-8b-fp8-dynamic").repo
'brandonbeiler/InternVL3_5-8B-FP8-Dynamic'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from internvl_modal.errors import ConfigError
from internvl_modal.models.families import family_of
from internvl_modal.models.llms import LLMS, VITS
from internvl_modal.models.shapes import ModelSpec

__all__ = ["MODELS", "find_model", "of_family", "unknown_model"]

# OpenGVLab's own files of 2.5 are MIT; the LLM inside may ask for more, and is named where it does.
_MIT = "MIT"
_QWEN_25 = "MIT, with Qwen2.5 under Apache-2.0"
_QWEN = "Qwen licence (Qwen2.5-72B)"
_RESEARCH = "MIT, with Qwen2.5-3B under the Qwen research licence (not commercial)"
_ASK = "MIT, with internlm2_5-7b-chat free for research, commercial use on application"
_APACHE = "Apache-2.0"
_V3 = "Apache-2.0, and the Qwen licence in its metadata"

_ROWS = (
    # family-size, language model, ViT, licence, variants
    ("InternVL2_5-1B", "Qwen2.5-0.5B", "300M", _QWEN_25, "MPO"),
    ("InternVL2_5-2B", "internlm2_5-1_8b-chat", "300M", _MIT, "MPO"),
    ("InternVL2_5-4B", "Qwen2.5-3B", "300M", _RESEARCH, "AWQ MPO"),
    ("InternVL2_5-8B", "internlm2_5-7b-chat", "300M", _ASK, "AWQ MPO"),
    ("InternVL2_5-26B", "internlm2_5-20b-chat", "6B", _MIT, "AWQ MPO"),
    ("InternVL2_5-38B", "Qwen2.5-32B", "6B", _QWEN_25, "AWQ MPO MPO-AWQ"),
    ("InternVL2_5-78B", "Qwen2.5-72B", "6B", _QWEN, "AWQ MPO"),
    ("InternVL3-1B", "Qwen2.5-0.5B", "300M", _V3, "AWQ Instruct hf"),
    ("InternVL3-2B", "Qwen2.5-1.5B", "300M", _V3, "AWQ Instruct hf"),
    ("InternVL3-8B", "Qwen2.5-7B", "300M", _V3, "AWQ FP8-Dynamic Instruct hf"),
    ("InternVL3-9B", "internlm3-8b-instruct", "300M", _MIT, "AWQ Instruct hf"),
    ("InternVL3-14B", "Qwen2.5-14B", "300M", _V3, "AWQ Instruct hf"),
    ("InternVL3-38B", "Qwen2.5-32B", "6B", _V3, "AWQ FP8-Dynamic Instruct hf"),
    ("InternVL3-78B", "Qwen2.5-72B", "6B", _QWEN, "AWQ FP8-Dynamic Instruct hf"),
    ("InternVL3_5-1B", "Qwen3-0.6B", "300M", _APACHE, "FP8-Dynamic Flash HF Instruct MPO"),
    ("InternVL3_5-2B", "Qwen3-1.7B", "300M", _APACHE, "FP8-Dynamic Flash HF Instruct MPO"),
    ("InternVL3_5-4B", "Qwen3-4B", "300M", _APACHE, "FP8-Dynamic Flash HF Instruct MPO"),
    ("InternVL3_5-8B", "Qwen3-8B", "300M", _APACHE, "FP8-Dynamic Flash HF Instruct MPO"),
    ("InternVL3_5-14B", "Qwen3-14B", "300M", _APACHE, "FP8-Dynamic Flash HF Instruct MPO"),
    ("InternVL3_5-38B", "Qwen3-32B", "6B", _APACHE, "FP8-Dynamic Flash HF Instruct MPO"),
    ("InternVL3_5-30B-A3B", "Qwen3-30B-A3B", "300M", _APACHE, "FP8-Dynamic Flash HF Instruct MPO"),
    ("InternVL3_5-241B-A28B", "Qwen3-235B-A22B", "6B", _APACHE, "HF Instruct MPO"),
    ("InternVL3_5-GPT-OSS-20B-A4B-Preview", "gpt-oss-20b", "300M", _APACHE, "FP8-Dynamic HF"),
)
_OWNER = "OpenGVLab"
_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "AWQ": {"quantization": "awq"},
    "FP8-Dynamic": {"quantization": "fp8"},
    "Flash": {"flash": True},
    "HF": {"converted": True},
    "Instruct": {},
    "MPO": {},
    "MPO-AWQ": {"quantization": "awq"},
    "hf": {"converted": True},
}
"""What each suffix means.

InternVL3 has no ``-MPO``: the plain repository is the one so trained, ``-Instruct`` the one before.
Of 3.5 the plain one is trained further still. ``-Pretrained`` ones answer no questions and are left
out.
"""
_OTHER_OWNERS = {"FP8-Dynamic": "brandonbeiler"}

_POSITIONS = {"InternVL2_5": 32768, "InternVL3": 32768, "InternVL3_5": 40960}
"""By family, but for GPT-OSS's."""
_GPT_OSS_POSITIONS = 131072

# Repositories with files for llama.cpp. ggml-org is the organisation of llama.cpp's authors; the
# names of InternVL3 have "-Instruct" there and nowhere else. QuantStack's of 38B have no vision
# part, and the files of its 30B-A3B and GPT-OSS were not read.
_GGUF = {
    "InternVL2_5-1B": "ggml-org/InternVL2_5-1B-GGUF",
    "InternVL2_5-4B": "ggml-org/InternVL2_5-4B-GGUF",
    "InternVL3-1B": "ggml-org/InternVL3-1B-Instruct-GGUF",
    "InternVL3-2B": "ggml-org/InternVL3-2B-Instruct-GGUF",
    "InternVL3-8B": "ggml-org/InternVL3-8B-Instruct-GGUF",
    "InternVL3-14B": "ggml-org/InternVL3-14B-Instruct-GGUF",
    "InternVL3_5-1B": "QuantStack/InternVL3_5-1B-gguf",
    "InternVL3_5-2B": "QuantStack/InternVL3_5-2B-gguf",
    "InternVL3_5-4B": "QuantStack/InternVL3_5-4B-gguf",
    "InternVL3_5-8B": "QuantStack/InternVL3_5-8B-gguf",
    "InternVL3_5-14B": "QuantStack/InternVL3_5-14B-gguf",
}


def _specs() -> Iterator[ModelSpec]:
    """Every repository, each size followed by its variants."""
    for name, llm, vit, licence, variants in _ROWS:
        plain = ModelSpec(
            name.lower(),
            f"{_OWNER}/{name}",
            LLMS[llm],
            VITS[vit],
            licence,
            context=_GPT_OSS_POSITIONS if "GPT" in name else _POSITIONS[name.partition("-")[0]],
            gguf=_GGUF.get(name),
        )
        yield plain
        for suffix in variants.split():
            owner = _OTHER_OWNERS.get(suffix, _OWNER)
            yield replace(
                plain,
                name=f"{name}-{suffix}".lower(),
                repo=f"{owner}/{name}-{suffix}",
                gguf=None,  # there are files of the plain ones only
                **_VARIANTS[suffix],
            )


MODELS: Mapping[str, ModelSpec] = {spec.name: spec for spec in _specs()}
"""By short name, in lower case: what ``plan --list`` shows and what a served model is called."""
_BY_REPOSITORY = {spec.repo.lower(): spec for spec in MODELS.values()}


def find_model(name: str) -> ModelSpec | None:
    """Look a short name or a repository id up, whatever its case; None if it is not listed.

    Only the listed repositories count: somebody else's fine-tune of the same name may have another
    shape, and its ``config.json`` is read instead.
    """
    wanted = name.strip().lower()
    return MODELS.get(wanted) or _BY_REPOSITORY.get(wanted)


def of_family(repo: str, family: str) -> ModelSpec:
    """A repository that is not listed, of the shape of the listed model that it was made from.

    Its name tells the family even where the repository's does not: a server tells the name of its
    model and nothing else, and how it is asked is read off that. Raises ConfigError where
    ``family`` is no name of the catalogue.

    >>> of_family("someone/captions", "internvl3_5-8b").name
    'captions-internvl3_5-8b'
    """
    base = find_model(family)
    if base is None:
        raise unknown_model(family)
    name = repo.rpartition("/")[2].lower()
    if family_of(name) != family_of(base.name):
        name = f"{name}-{base.name}"
    return replace(base, name=name, repo=repo, licence="see the repository", gguf=None)


def unknown_model(name: str) -> ConfigError:
    """Say that ``name`` is neither listed nor a repository, or what may be meant.

    Returned and not raised, so that the caller's traceback ends where the name was given.
    """
    wanted, where = name.strip().lower(), "`internvl-modal plan --list` shows the catalog"
    if near := get_close_matches(wanted, MODELS, n=3):
        where = f"did you mean {', '.join(near)}? {where}"
    return ConfigError(
        f"unknown model {name!r}", hint=f"{where}; another repository of InternVL is owner/name"
    )
