"""What a cached model is: its manifest, its place in the cache, and which files it needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from internvl_modal.weights.layout import MANIFEST, Place, abbreviates

__all__ = ["CachedFile", "Manifest", "RemoteFile"]


def _inside(path: str) -> str:
    """Refuse a name that would leave the model's folder: names come from the network."""
    parts = PurePosixPath(path).parts
    outside = path.startswith("/") or ".." in parts or "\0" in path
    if sys.platform == "win32":  # a drive, a stream or a separator there; elsewhere mere letters
        outside = outside or re.search(r"[\\:]", path) is not None
    if not parts or outside or parts == (MANIFEST,):
        raise ValueError(f"{path!r} is not a file name inside a repository")
    return path


InsidePath: TypeAlias = Annotated[str, AfterValidator(_inside)]


class RemoteFile(BaseModel):
    """One file as the Hub names it; ``sha256`` is None for files outside LFS, which have ``oid``.

    ``oid`` is the Hub's identity of the content: the sha256, else the git blob's sha1.

    ``size`` is in bytes, and compared before any hash.
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

    A later format gets another number; this version then takes the model for absent, not for
    broken.
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
    def place(self) -> Place:
        """Where the model lies."""
        return Place(self.model, self.commit)

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(file.path for file in self.files)

    def is_at(self, revision: str) -> bool:
        """Say whether this is the commit, or was asked for by that name."""
        return revision in self.revisions or abbreviates(revision, self.commit)

    def damaged(self, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """Name the files that are missing, of another size, or known to be bad."""
        # By size: hashing 157 GB at every start would take longer than loading them.
        wrong = {f.path for f in self.files if sizes.get(f.path) != f.size}
        return tuple(sorted(wrong | set(self.bad)))

    @classmethod
    def parse(cls, text: bytes) -> Manifest | None:
        """Read a manifest; one that cannot be read is no manifest.

        A torn or foreign file counts as none, and ``ensure`` makes the model whole again.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None
