"""What lies in a cache: its manifests, what is damaged, what is half there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from internvl_modal._utils.notebook import card
from internvl_modal.errors import WeightsError
from internvl_modal.weights import layout
from internvl_modal.weights.layout import Place
from internvl_modal.weights.manifest import Manifest
from internvl_modal.weights.plain_files import NotAFileError, open_new, write_all
from internvl_modal.weights.selection import Selection, repositories
from internvl_modal.weights.store import Folder, Store

__all__ = [
    "CachedModel",
    "Snapshot",
    "absent",
    "damage",
    "find",
    "find_manifest",
    "inventory",
    "manifests",
    "not_cached",
    "sync_folder",
    "write_manifest",
]


@dataclass(frozen=True)
class Snapshot(os.PathLike[str]):
    """A complete, verified model on this machine; use it as a path.

    ``commit`` is what it is pinned to: no branch that moves changes the files, or the code in them.

    Pins the Python code in it too: LMDeploy runs that.
    """

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

    @property
    def code(self) -> tuple[str, ...]:
        """The repository's own Python, which LMDeploy and transformers run."""
        return tuple(name for name in self.files if name.endswith(".py"))


@dataclass(frozen=True)
class CachedModel:
    """One model in the cache, or what a stopped download has left of it; ``size`` is bytes.

    ``last_used`` is in UTC, and as exact as the file system's times.
    """

    model: str
    commit: str
    size: int
    complete: bool
    last_used: datetime

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON; the time as ISO 8601."""
        return asdict(self) | {"last_used": self.last_used.isoformat()}

    def _repr_html_(self) -> str:
        facts = [f"commit {self.commit[:12]}", f"{self.size / 1e9:.2f} GB"]
        facts += [f"last used {self.last_used:%Y-%m-%d %H:%M} UTC"]
        return card(self.model, facts, warnings=[] if self.complete else ["not complete"])


def manifests(store: Store, model: str = "") -> Iterator[Manifest]:
    """Every readable manifest that lies where it says, of one model or of all."""
    for path in store.entries(model):
        if layout.is_manifest(path):
            manifest = _read(store, path)
            # A manifest that was copied elsewhere speaks of files that are not beside it.
            if manifest and path == layout.manifest_file(manifest.place.home):
                yield manifest


def _read(store: Store, path: str) -> Manifest | None:
    with suppress(FileNotFoundError, NotAFileError):  # removed meanwhile, or none of ours
        return Manifest.parse(store.read(path))
    return None


def damage(store: Store, manifest: Manifest) -> tuple[str, ...]:
    """Name the files that are missing, of another size, or known to be bad."""
    home = manifest.place.home
    start = len(home) + 1
    found = store.entries(home)
    return manifest.damaged({path[start:]: entry.size for path, entry in found.items()})


def find(folder: Folder, selection: Selection) -> Snapshot | None:
    """The newest whole model that answers the selection; its manifest's time becomes now.

    No lock and no network. "Newest" is by the manifest's time: a branch may have moved.
    """
    whole = [m for m in manifests(folder, selection.model) if selection.answered_by(m)]
    whole = [m for m in whole if not damage(folder, m)]
    if not whole:
        return None
    manifest = max(whole, key=lambda manifest: manifest.time)
    home = manifest.place.home
    with suppress(OSError):  # A read-only cache is as good; it only forgets when it was used.
        os.utime(folder.root / layout.manifest_file(home))
    return Snapshot(folder.root / home, manifest.model, manifest.commit, manifest.paths)


def find_manifest(store: Store, model: str, revision: str | None) -> Manifest:
    """The newest manifest of a model, or of one revision; raises WeightsError where none is."""
    for name in repositories(model):
        found = list(manifests(store, name))
        named = [m for m in found if revision is None or m.is_at(revision)]
        if named:
            return max(named, key=lambda manifest: manifest.time)
        if found:
            break
    raise not_cached(store, model, revision)


def not_cached(store: Store, model: str, revision: str | None) -> WeightsError:
    """What to say of a model, whole or not, of which nothing is here."""
    at = "" if revision is None else f" at {revision!r}"
    return WeightsError(
        f"{model}{at} is not in {store.where}",
        hint="internvl-modal weights list shows what is",
    )


def absent(folder: Folder, selection: Selection) -> WeightsError:
    """What to say of a model that is not whole, where nothing may be fetched."""
    names = selection.names or tuple(
        path
        for m in manifests(folder, selection.model)
        if selection.answered_by(m)
        for path in damage(folder, m)
    )
    what = f": {', '.join(names)} missing" if names else ""
    return WeightsError(
        f"{selection.model} at {selection.revision} is not complete in {folder.where}{what}",
        hint="run once with a network and without offline",
        files=names,
        destination=str(folder.root / selection.model),
    )


def inventory(store: Store) -> tuple[CachedModel, ...]:
    """Every model, whole or not, by name and commit; other files are none of ours."""
    whole = {m.place for m in manifests(store) if not damage(store, m)}
    sizes: dict[Place, int] = {}
    used: dict[Place, float] = {}
    for path, entry in store.entries().items():
        if place := layout.place_of(path):
            sizes[place] = sizes.get(place, 0) + entry.size
            used[place] = max(used.get(place, 0.0), entry.mtime)
    return tuple(
        CachedModel(
            model=place.model,
            commit=place.commit,
            size=sizes[place],
            complete=place in whole,
            last_used=datetime.fromtimestamp(used[place], timezone.utc),
        )
        for place in sorted(sizes)
    )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Put the manifest into the folder ``path``: whole and on the disk, or not at all."""
    with open_new(path / layout.DRAFT) as file:
        write_all(file, manifest.model_dump_json(indent=1).encode())
        os.fsync(file.fileno())
    (path / layout.DRAFT).replace(path / layout.MANIFEST)
    sync_folder(path)


def sync_folder(path: Path) -> None:
    """Put a folder's names on the disk, where the platform can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
