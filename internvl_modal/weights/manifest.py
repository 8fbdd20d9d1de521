"""What a cached model is: its manifest, its place in the cache, and which files it needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from internvl_modal.errors import WeightsError

__all__ = [
    "COMMIT",
    "MANIFEST",
    "PARTIAL",
    "PLACE",
    "CachedFile",
    "Manifest",
    "RemoteFile",
    "Variant",
    "Wish",
    "abbreviates",
    "select",
]

MANIFEST = "internvl-modal.json"
PARTIAL = ".partial"
COMMIT = re.compile(r"[0-9a-f]{40}")
PLACE = re.compile(rf"((?!\.|[^/]*--)[^/]+/[^/]+/{COMMIT.pattern})/")
"""A file of a model: no repository's name holds two dashes, but folders of huggingface_hub's do."""

Variant: TypeAlias = Literal["auto", "safetensors", "bin", "gguf"]

SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)$")
SERVING_SUFFIXES = {".json", ".py", ".txt", ".model", ".jinja", ".tiktoken"}
WEIGHTS = {
    "safetensors": re.compile(r"(?!consolidated|adapter_)[^/]+\.safetensors$"),
    "bin": re.compile(r"pytorch_model[^/]*\.bin$"),
}


def _inside(path: str) -> str:
    """Refuse a name that would leave the model's folder: names come from the network."""
    parts = PurePosixPath(path).parts
    outside = path.startswith("/") or ".." in parts
    if sys.platform == "win32":  # a drive, a stream or a separator there; elsewhere mere letters
        outside = outside or re.search(r"[\\:]", path) is not None
    if not parts or outside or parts == (MANIFEST,):
        raise ValueError(f"{path!r} is not a file name inside a repository")
    return path


InsidePath: TypeAlias = Annotated[str, AfterValidator(_inside)]


class RemoteFile(BaseModel):
    """One file as the Hub names it; ``sha256`` is None for files outside LFS, which have ``oid``.

    ``oid`` is the Hub's identity of the content: the sha256, else the git blob's sha1.
    """

    model_config = ConfigDict(frozen=True)
    path: InsidePath
    size: int
    oid: str
    sha256: str | None = None


class CachedFile(RemoteFile):
    """One file of a complete model."""

    sha256: str


class Manifest(BaseModel):
    """Written last: only a folder whose files match it is a model.

    ``bad`` names files that a deep verification found damaged; ``revisions`` are the names this
    commit was asked for by.
    """

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    model: str
    commit: str
    source: str
    time: datetime
    revisions: tuple[str, ...]
    variants: tuple[str, ...]
    files: tuple[CachedFile, ...]
    bad: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where the model lies, from the cache's root."""
        return f"{self.model}/{self.commit}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(file.path for file in self.files)

    def is_at(self, revision: str) -> bool:
        """Say whether this is the commit, or was asked for by that name."""
        return revision in self.revisions or abbreviates(revision, self.commit)

    def damaged(self, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """Name the files that are missing, of another size, or known to be bad."""
        wrong = {f.path for f in self.files if sizes.get(f.path) != f.size}
        return tuple(sorted(wrong | set(self.bad)))

    @classmethod
    def parse(cls, text: bytes) -> Manifest | None:
        """Read a manifest; one that cannot be read is no manifest."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


@dataclass(frozen=True)
class Wish:
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


def abbreviates(revision: str, commit: str) -> bool:
    """Say whether ``revision`` is the commit, or its beginning as git abbreviates."""
    return re.fullmatch(r"[0-9a-f]{7,40}", revision) is not None and commit.startswith(revision)


def select(wish: Wish, files: Sequence[RemoteFile]) -> tuple[str | None, list[RemoteFile]]:
    """Choose what serving needs: the named files, or weights, tokenizer, configuration and code.

    Returns the variant found (None for named files) and its files.
    """
    model, variant, names = wish.model, wish.variant, wish.names
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
    for kind in ("safetensors", "bin") if variant == "auto" else (variant,):
        weights = _weights(model, by_name, kind)
        if weights:
            return kind, weights + [f for f in files if _serves(f.path, kind)]
    raise WeightsError(
        f"{model} has no {'safetensors or .bin' if variant == 'auto' else variant} weights",
        hint="name the files to fetch, or choose another revision",
    )


def _gguf_pair(model: str, by_name: dict[str, RemoteFile]) -> list[RemoteFile]:
    """Take the language model and its vision part, Q8_0 where there is a choice."""
    pair: list[RemoteFile] = []
    for vision in (False, True):
        kind = [
            p for p in sorted(by_name) if p.endswith(".gguf") and p.startswith("mmproj") == vision
        ]
        if not kind:
            missing = "mmproj-*.gguf" if vision else "*.gguf"
            raise WeightsError(f"{model} has no {missing}", hint="name the files to fetch")
        chosen = next((p for p in kind if "Q8_0" in p), kind[0])
        pair += [by_name[path] for path in _whole(model, "gguf", chosen, kind)]
    return pair


def _serves(path: str, kind: str) -> bool:
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
    present = set(names) & set(paths)
    if path not in names or len(present) < len(names):
        raise WeightsError(
            f"{model} has {len(present)} of {len(names)} {kind} shards of {stem}",
            hint="the repository itself is incomplete: choose another revision",
        )
    return names
