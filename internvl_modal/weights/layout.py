"""Where everything lies in a cache; no other module puts a path together.

Paths are relative to the cache's root, with slashes: they name files of a folder and of a Modal
Volume alike. A model lies in ``owner/name/<commit>`` with its manifest; what is being fetched for
it in ``.partial/owner/name/<commit>``. No folder of ours holds two dashes: those of huggingface_hub
in the same place do, and are left alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "COMMIT",
    "DRAFT",
    "MANIFEST",
    "Place",
    "abbreviates",
    "is_manifest",
    "lock_file",
    "manifest_file",
    "part_file",
    "place_of",
    "unordered_file",
    "volume_lock",
]

COMMIT = re.compile(r"[0-9a-f]{40}")
"""Of git's sha1; the Hub has no others."""
MANIFEST = "internvl-modal.json"
DRAFT = f"{MANIFEST}.new"
"""A manifest that is being written; one rename makes it the manifest.

In the same folder, as a rename does not lead to another disk.
"""
_PARTIAL = ".partial"
_LOCKS = ".locks"
_PLACE = re.compile(rf"((?!\.|[^/]*--)[^/]+/[^/]+)/({COMMIT.pattern})/")


class Place(NamedTuple):
    """One commit of a model: its folder, and the one in which its files gather."""

    model: str
    commit: str

    @property
    def home(self) -> str:
        """The folder of the complete model; LMDeploy reads the model's name in it.

        With the commit as its last part: two versions never share a folder.
        """
        return f"{self.model}/{self.commit}"

    @property
    def staging(self) -> str:
        """The folder of an unfinished download, on the same disk: one rename publishes it."""
        return f"{_PARTIAL}/{self.home}"


def place_of(path: str) -> Place | None:
    """The model to which a stored file belongs, whole or under way; None for other files."""
    found = _PLACE.match(path.removeprefix(f"{_PARTIAL}/"))
    return Place(found[1], found[2]) if found else None


def manifest_file(home: str) -> str:
    """The manifest of the model in the folder ``home``."""
    return f"{home}/{MANIFEST}"


def is_manifest(path: str) -> bool:
    """Whether a stored file may be a complete model's manifest."""
    return path.endswith(f"/{MANIFEST}") and not path.startswith(".")


def part_file(path: str) -> str:
    """The file that holds the first bytes of ``path``: another run appends the rest."""
    return f"{path}.part"


def unordered_file(path: str) -> str:
    """The file that hf_transfer fills in any order: no run can continue it."""
    return f"{path}.whole"


def lock_file(model: str) -> str:
    """The lock of all commits of a model."""
    return f"{_LOCKS}/{model.replace('/', '--')}.lock"


def volume_lock(volume: str, model: str) -> str:
    """The same for a Modal Volume: an entry of a Dict, no file."""
    return f"{volume}/{model}"


def abbreviates(revision: str, commit: str) -> bool:
    """Say whether ``revision`` is the commit, or its beginning as git abbreviates."""
    return re.fullmatch(r"[0-9a-f]{7,40}", revision) is not None and commit.startswith(revision)
