"""What lies in a cache: its manifests, what is damaged, what is half there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from internvl_modal.weights.layout import MANIFEST, PARTIAL, PLACE
from internvl_modal.weights.manifest import Manifest
from internvl_modal.weights.selection import Selection
from internvl_modal.weights.store import Folder, Store

__all__ = ["CachedModel", "Snapshot", "damage", "find", "inventory", "manifests", "write_manifest"]


@dataclass(frozen=True)
class Snapshot(os.PathLike[str]):
    """A complete, verified model on this machine; use it as a path."""

    path: Path
    model: str
    commit: str
    files: tuple[str, ...]

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def file(self, name: str) -> Path:
        """Path of one of the model's files."""
        return self.path / name


@dataclass(frozen=True)
class CachedModel:
    """One model in the cache, or what a stopped download has left of it; ``size`` is bytes."""

    model: str
    commit: str
    size: int
    complete: bool
    last_used: datetime


def manifests(store: Store, model: str = "") -> Iterator[Manifest]:
    """Every readable manifest that lies where it says, of one model or of all."""
    for path in store.entries(model):
        if path.endswith(f"/{MANIFEST}") and not path.startswith("."):
            manifest = _read(store, path)
            if manifest and path == f"{manifest.folder}/{MANIFEST}":
                yield manifest


def _read(store: Store, path: str) -> Manifest | None:
    with suppress(FileNotFoundError):  # removed meanwhile
        return Manifest.parse(store.read(path))
    return None


def damage(store: Store, manifest: Manifest) -> tuple[str, ...]:
    """Name the files that are missing, of another size, or known to be bad."""
    start = len(manifest.folder) + 1
    found = store.entries(manifest.folder)
    return manifest.damaged({path[start:]: entry.size for path, entry in found.items()})


def find(folder: Folder, selection: Selection) -> Snapshot | None:
    """The newest whole model that answers the selection; its manifest's time becomes now."""
    whole = [m for m in manifests(folder, selection.model) if selection.answered_by(m)]
    whole = [m for m in whole if not damage(folder, m)]
    if not whole:
        return None
    manifest = max(whole, key=lambda manifest: manifest.time)
    path = folder.root / manifest.folder
    with suppress(OSError):  # A read-only cache is as good; it only forgets when it was used.
        os.utime(path / MANIFEST)
    return Snapshot(path, manifest.model, manifest.commit, manifest.paths)


def inventory(store: Store) -> tuple[CachedModel, ...]:
    """Every model, whole or not, by name and commit; other files are none of ours."""
    whole = {m.folder for m in manifests(store) if not damage(store, m)}
    sizes: dict[str, int] = {}
    used: dict[str, float] = {}
    for path, entry in store.entries().items():
        if place := PLACE.match(path.removeprefix(f"{PARTIAL}/")):
            name = place[1]
            sizes[name] = sizes.get(name, 0) + entry.size
            used[name] = max(used.get(name, 0.0), entry.mtime)
    return tuple(
        CachedModel(
            model=name.rpartition("/")[0],
            commit=name.rpartition("/")[2],
            size=sizes[name],
            complete=name in whole,
            last_used=datetime.fromtimestamp(used[name], timezone.utc),
        )
        for name in sorted(sizes)
    )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Put the manifest into the folder ``path``: whole and on the disk, or not at all."""
    fresh = path / f"{MANIFEST}.new"
    with fresh.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path / MANIFEST)
    sync_folder(path)


def sync_folder(path: Path) -> None:
    """Put a folder's names on the disk, where the platform can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
