"""What a check of a cached model finds: sizes, or every byte.

Apart from the cache's door, as it is the only one that reads every byte and knows nothing of the
Hub.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from internvl_modal.weights.download import Digest, hash_file
from internvl_modal.weights.inventory import damage, find_manifest, manifests, write_manifest
from internvl_modal.weights.manifest import CachedFile, Manifest
from internvl_modal.weights.progress import ProgressOption, Reporter
from internvl_modal.weights.store import Folder, Store, writing

__all__ = ["Verification", "verified"]


@dataclass(frozen=True)
class Verification:
    """What a verification found; ``bad`` files are missing, cut or changed."""

    model: str
    commit: str
    variants: tuple[str, ...]
    files: int
    bad: tuple[str, ...]
    deep: bool

    @property
    def ok(self) -> bool:
        """Whether every file is as the manifest says."""
        return not self.bad


def verified(
    store: Store,
    model: str,
    revision: str | None,
    *,
    deep: bool,
    progress: ProgressOption,
    workers: int,
) -> Verification:
    """Compare a model with its manifest; ``deep`` needs a folder, and notes there what is bad.

    Raises WeightsError when the model is not in the cache.
    """
    manifest = find_manifest(store, model, revision)
    bad = damage(store, manifest)
    if deep and isinstance(store, Folder):
        bad = _hashed(store, manifest, manifest.files, progress, workers)
        if set(bad) != set(manifest.bad):
            with suppress(OSError):  # who may only read is told all the same
                bad = _noted(store, manifest, bad, workers)
    files = len(manifest.files)
    return Verification(manifest.model, manifest.commit, manifest.variants, files, bad, deep)


def _noted(folder: Folder, seen: Manifest, bad: tuple[str, ...], workers: int) -> tuple[str, ...]:
    """Note in the manifest as it is now what is still bad: it may have grown, or be gone."""
    with writing(folder, seen.model):
        for now in manifests(folder, seen.model):
            if now.commit == seen.commit:
                doubtful = [f for f in now.files if f.path in {*bad, *now.bad}]
                bad = _hashed(folder, now, doubtful, None, workers)
                write_manifest(folder.root / now.place.home, now.model_copy(update={"bad": bad}))
        folder.push()
    return bad


def _hashed(
    folder: Folder,
    manifest: Manifest,
    files: Sequence[CachedFile],
    progress: ProgressOption,
    workers: int,
) -> tuple[str, ...]:
    """Names of the files whose content is not the manifest's, read in parallel."""
    home, stop = folder.root / manifest.place.home, threading.Event()
    total = sum(file.size for file in files)
    task = f"Verifying {manifest.model}"
    with (
        Reporter(progress, task, len(files), total) as report,
        ThreadPoolExecutor(workers) as pool,
    ):

        def check(file: CachedFile) -> bool:
            digest, sound = Digest(file), False
            with suppress(OSError):  # gone, or it cannot be read
                hash_file(home / file.path, digest, report.advance, stop)
                sound = digest.verified() is not None
            report.file_done()
            return sound

        try:
            sound = tuple(pool.map(check, files))
        finally:
            stop.set()
    return tuple(f.path for f, good in zip(files, sound, strict=True) if not good)
