"""Which files of a repository make a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from internvl_modal.errors import WeightsError
from internvl_modal.weights.manifest import Manifest, RemoteFile

Variant: TypeAlias = Literal["auto", "safetensors", "bin", "gguf"]


SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)$")
"""As transformers and safetensors name them."""


SERVING_SUFFIXES = {".json", ".py", ".txt", ".model", ".jinja", ".tiktoken"}
"""Configuration, code, tokenizer and chat template. Pictures and READMEs of a repository are left
out.
"""


WEIGHTS = {
    "safetensors": re.compile(r"(?!consolidated|adapter_)[^/]+\.safetensors$"),
    "bin": re.compile(r"pytorch_model[^/]*\.bin$"),
}
"""Of two copies of the same weights one is taken: ``consolidated`` is a second one in
other shards.
"""


@dataclass(frozen=True)
class Selection:
    """What is asked of a cache: files by name, or a variant."""

    model: str
    revision: str
    variant: Variant
    names: tuple[str, ...] | None

    def answered_by(self, manifest: Manifest) -> bool:
        """Say whether a cached model is this one, be it whole or damaged."""
        if not manifest.is_at(self.revision):
            return False
        if self.names is not None:
            return set(self.names) <= set(manifest.paths)
        if self.variant == "auto":
            return bool({"safetensors", "bin"} & set(manifest.variants))
        return self.variant in manifest.variants


def select(
    selection: Selection, files: Sequence[RemoteFile]
) -> tuple[str | None, list[RemoteFile]]:
    """Choose what serving needs: the named files, or weights, tokenizer, configuration and code.

    Returns the variant found (None for named files) and its files.

    A fixed list of patterns to leave out would break on AWQ repositories that hold ``.bin`` files
    alone.
    """
    model, variant, names = selection.model, selection.variant, selection.names
    # Named files are taken as they are, whatever they hold.
    by_name = {file.path: file for file in files}
    if names is not None:
        absent = sorted(set(names) - set(by_name))
        if absent:
            like = sorted(p for p in by_name if p.endswith(PurePosixPath(absent[0]).suffix))
            raise WeightsError(
                f"{model} has no file {', '.join(absent)}",
                hint=f"it has {', '.join(like[:8])}" if like else "check the repository's name",
                files=tuple(absent),
            )
        return None, [by_name[name] for name in names]
    if variant == "gguf":
        return variant, _gguf_pair(model, by_name)
    # Safetensors first: they load faster and cannot run code.
    for kind in ("safetensors", "bin") if variant == "auto" else (variant,):
        weights = _weights(model, by_name, kind)
        if weights:
            return kind, weights + [f for f in files if _serves(f.path, kind)]
    raise WeightsError(
        f"{model} has no {'safetensors or .bin' if variant == 'auto' else variant} weights",
        hint="name the files to fetch, or choose another revision",
    )


def _gguf_pair(model: str, by_name: dict[str, RemoteFile]) -> list[RemoteFile]:
    """Take the language model and its vision part, of several formats the best for a CPU."""
    pair: list[RemoteFile] = []
    for vision in (False, True):
        kind = [
            p for p in sorted(by_name) if p.endswith(".gguf") and p.startswith("mmproj") == vision
        ]
        if not kind:
            missing = "mmproj-*.gguf" if vision else "*.gguf"
            raise WeightsError(f"{model} has no {missing}", hint="name the files to fetch")
        chosen = min(kind, key=_bits_rank)
        pair += [by_name[path] for path in _whole(model, "gguf", chosen, kind)]
    return pair


_BITS = ("q8_0", "q6_k", "f16", "bf16")
"""GGUF formats in the order in which they are taken; smaller ones come after.

Small models with fewer bits have been seen to repeat themselves, and 16 bits cost a CPU twice the
time of 8 and no answer is better for it.
"""


def _bits_rank(path: str) -> int:
    name = path.lower()
    return next((rank for rank, bits in enumerate(_BITS) if f"-{bits}" in name), len(_BITS))


def _serves(path: str, kind: str) -> bool:
    # Folders of a repository hold examples and other engines' exports.
    if "/" in path or PurePosixPath(path).suffix not in SERVING_SUFFIXES:
        return False
    return not path.endswith(".index.json") or f".{kind}." in path


def _weights(model: str, by_name: dict[str, RemoteFile], kind: str) -> list[RemoteFile]:
    """Take the shards where there are any: a single file beside them holds the same weights."""
    found = sorted(path for path in by_name if WEIGHTS[kind].match(path))
    shards = {p for path in found if SHARD.match(path) for p in _whole(model, kind, path, found)}
    return [by_name[path] for path in sorted(shards or found)]


def _whole(model: str, kind: str, path: str, paths: Sequence[str]) -> list[str]:
    """Take all the shards to which ``path`` belongs; a file that is no shard is whole alone."""
    if not (match := SHARD.match(path)):
        return [path]
    stem, count, suffix = match.groups()
    names = [f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1)]
    # The name of a shard says how many there are: one that is missing is known before the download.
    present = set(names) & set(paths)
    if path not in names or len(present) < len(names):
        raise WeightsError(
            f"{model} has {len(present)} of {len(names)} {kind} shards of {stem}",
            hint="the repository itself is incomplete: choose another revision",
        )
    return names


def repository_name(model: str, variant: Variant) -> str:
    """The repository of a catalog name, or ``owner/name`` as it is."""
    from internvl_modal.models.catalogue import MODELS, find_model, unknown_model

    if not model.isprintable():  # a NUL is no part of any path
        raise WeightsError(f"{model!r} is not a repository's name", hint="write it as owner/name")
    spec = find_model(model)
    if spec is not None and variant == "gguf":
        if spec.gguf is None:
            names = ", ".join(each.name for each in MODELS.values() if each.gguf)
            raise WeightsError(f"there are no GGUF files of {model}", hint=f"there are of {names}")
        return spec.gguf
    if spec is not None:
        return spec.repo
    if model.count("/") == 1 and not model.startswith((".", "/")) and ".." not in model:
        return model
    unknown = unknown_model(model)
    raise WeightsError(unknown.message, hint=unknown.hint)


def repositories(model: str) -> tuple[str, ...]:
    """Where the files of a name may lie, in the order in which to look."""
    from internvl_modal.models.catalogue import find_model

    spec = None if "/" in model else find_model(model)
    return (spec.repo, spec.gguf) if spec and spec.gguf else (repository_name(model, "auto"),)
