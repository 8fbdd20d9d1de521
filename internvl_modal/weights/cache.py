"""The weights cache: a model is complete and verified, or not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights.download import FREE_SPACE, NO_ROOM, Digest, hash_file
from internvl_modal.weights.inventory import (
    CachedModel,
    Snapshot,
    damage,
    find,
    inventory,
    manifests,
    write_manifest,
)
from internvl_modal.weights.layout import PARTIAL, abbreviates
from internvl_modal.weights.manifest import CachedFile, Manifest
from internvl_modal.weights.progress import CallbackError, ProgressOption, Reporter
from internvl_modal.weights.selection import Selection, Variant
from internvl_modal.weights.store import Folder, Store, open_volume
from internvl_modal.weights.verification import Verification

__all__ = ["WeightsCache"]


class WeightsCache:
    """Model files in a folder, or with :meth:`volume` in a Modal Volume.

    ``token`` None means ``HF_TOKEN`` or the login of huggingface_hub; ``endpoint`` None means
    ``HF_ENDPOINT`` or huggingface.co; ``workers`` files are fetched or verified at once.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        token: str | None = None,
        endpoint: str | None = None,
        workers: int = 8,
    ) -> None:
        if not os.fspath(root):
            raise ConfigError("the weights cache has no folder", hint='name one; "." is this one')
        self._store: Store = Folder(Path(root).expanduser().absolute())
        self._token, self._endpoint, self._workers = token, endpoint, workers

    @classmethod
    def volume(
        cls,
        name: str,
        *,
        environment: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        workers: int = 8,
    ) -> WeightsCache:
        """Open the cache in a Modal Volume.

        In a container it works through the mount named by ``INTERNVL_MODAL_WEIGHTS_ROOT``; from
        elsewhere it can list, verify sizes, remove and prune.
        """
        cache = cls(".", token=token, endpoint=endpoint, workers=workers)
        root = os.environ.get("INTERNVL_MODAL_WEIGHTS_ROOT") or None
        cache._store = open_volume(name, environment, root)
        return cache

    @property
    def where(self) -> str:
        """Its folder, or which Volume it is."""
        return self._store.where

    def __repr__(self) -> str:
        return f"WeightsCache({self.where!r})"

    def ensure(
        self,
        model: str,
        revision: str | None = None,
        *,
        variant: Variant = "auto",
        files: Collection[str] | None = None,
        offline: bool = False,
        progress: ProgressOption = "auto",
    ) -> Snapshot:
        """Return the model complete and verified, downloading or repairing what that takes.

        ``model`` is a name of the catalog or a repository ``owner/name``. ``files`` names exactly
        what to fetch; else ``variant`` chooses: "auto" takes safetensors, or .bin files where
        there are none; "gguf" the pair for llama.cpp. A model that is complete costs no network.
        Raises WeightsError.
        """
        folder = self._folder("download")
        names = tuple(sorted(set(files))) if files is not None else None
        if names == ():
            raise ConfigError("files names no file", hint="leave it out to choose by variant")
        selection = Selection(repository_name(model, variant), revision or "main", variant, names)
        with _local_errors(folder):
            folder.pull()
            if found := find(folder, selection):
                return found
            if offline:
                raise _absent(folder, selection)
            from internvl_modal.weights.hub import Hub
            from internvl_modal.weights.install import Installation

            hub = Hub(self._token, self._endpoint)
            return Installation(folder, selection, hub, progress, self._workers).run()

    def verify(
        self,
        model: str,
        revision: str | None = None,
        *,
        deep: bool = False,
        progress: ProgressOption = None,
    ) -> Verification:
        """Compare a model with its manifest: sizes, or with ``deep`` the sha256 of every file.

        What a deep verification finds is noted in the manifest, where that can be written, so that
        ``ensure`` repairs just those files. A name of the catalog means its own repository or,
        where only that is in the cache, its GGUF one. Raises WeightsError when the model is not in
        the cache.
        """
        with _local_errors(self._store):
            self._store.pull()
            manifest = self._find(model, revision)
            bad = damage(self._store, manifest)
            if deep:
                folder = self._folder("verify checksums")
                bad = self._hash(folder, manifest, manifest.files, progress)
                if set(bad) != set(manifest.bad):
                    with suppress(OSError):  # who may only read is told all the same
                        bad = self._note(folder, manifest, bad)
        files = len(manifest.files)
        return Verification(manifest.model, manifest.commit, manifest.variants, files, bad, deep)

    def list(self) -> tuple[CachedModel, ...]:
        """Every model in the cache, whole or not, by name and commit."""
        with _local_errors(self._store):
            self._store.pull()
            return inventory(self._store)

    def remove(self, model: str, revision: str | None = None) -> tuple[CachedModel, ...]:
        """Remove a model, or one revision of it, and what stopped downloads left; say what went.

        A name of the catalog means what it means to ``verify``. Waits for a running download of
        it. Raises WeightsError when there is nothing to remove.
        """
        for name in _repositories(model):
            with _local_errors(self._store), self._guard(name):
                going = mine = [entry for entry in self.list() if entry.model == name]
                if revision is not None:
                    named = {m.commit for m in manifests(self._store, name) if m.is_at(revision)}
                    going = [
                        e for e in mine if e.commit in named or abbreviates(revision, e.commit)
                    ]
                if going:
                    return self._discard(going)
                if mine:
                    break
        raise _unknown(self._store, model, revision)

    def prune(self, keep: int = 1) -> tuple[CachedModel, ...]:
        """Keep the ``keep`` last used whole commits of each model, remove all else; say what went.

        Where none is whole damaged ones are kept. Waits for running downloads.
        """
        if keep < 0:
            raise ConfigError(f"keep={keep}: it is a number of commits", hint="0 removes all")
        going: list[CachedModel] = []
        for model in sorted({entry.model for entry in self.list()}):
            with _local_errors(self._store), self._guard(model):
                mine = [entry for entry in self.list() if entry.model == model]
                mine.sort(key=lambda entry: entry.last_used, reverse=True)
                known = {manifest.commit for manifest in manifests(self._store, model)}
                whole = [entry for entry in mine if entry.complete]
                kept = (whole or [entry for entry in mine if entry.commit in known])[:keep]
                going += self._discard([entry for entry in mine if entry not in kept])
                going += self._discard_unfinished(kept)
        return tuple(going)

    @contextmanager
    def _guard(self, model: str) -> Iterator[None]:
        """Keep others from writing a model; from outside a Volume there is no lock to hold.

        A full disk has no room for one either: what frees it waits for others and goes on.
        """
        from internvl_modal.weights.install import model_lock

        with ExitStack() as held:
            if isinstance(self._store, Folder):
                try:
                    held.enter_context(model_lock(self._store, model, threading.Event()))
                except OSError as error:
                    if error.errno not in NO_ROOM:
                        raise
            yield

    def _discard(self, going: Sequence[CachedModel]) -> tuple[CachedModel, ...]:
        for entry in going:
            place = f"{entry.model}/{entry.commit}"
            for path in (place, f"{PARTIAL}/{place}"):
                if self._store.entries(path):
                    self._store.remove(path)
        self._store.push()
        return tuple(going)

    def _discard_unfinished(self, kept: Sequence[CachedModel]) -> Iterator[CachedModel]:
        """Remove what a stopped download has left beside models that are kept."""
        for entry in kept:
            path = f"{PARTIAL}/{entry.model}/{entry.commit}"
            if left := self._store.entries(path):
                self._store.remove(path)
                self._store.push()
                yield replace(entry, size=sum(e.size for e in left.values()), complete=False)

    def _find(self, model: str, revision: str | None) -> Manifest:
        for name in _repositories(model):
            found = list(manifests(self._store, name))
            named = [m for m in found if revision is None or m.is_at(revision)]
            if named:
                return max(named, key=lambda manifest: manifest.time)
            if found:
                break
        raise _unknown(self._store, model, revision)

    def _note(self, folder: Folder, seen: Manifest, bad: tuple[str, ...]) -> tuple[str, ...]:
        """Note in the manifest as it is now what is still bad: it may have grown, or be gone."""
        with self._guard(seen.model):
            for now in manifests(folder, seen.model):
                if now.commit == seen.commit:
                    doubtful = [f for f in now.files if f.path in {*bad, *now.bad}]
                    bad = self._hash(folder, now, doubtful, None)
                    changed = now.model_copy(update={"bad": bad})
                    write_manifest(folder.root / now.folder, changed)
            folder.push()
        return bad

    def _hash(
        self,
        folder: Folder,
        manifest: Manifest,
        files: Sequence[CachedFile],
        progress: ProgressOption,
    ) -> tuple[str, ...]:
        """Names of the files whose content is not the manifest's, read in parallel."""
        home, stop = folder.root / manifest.folder, threading.Event()
        total = sum(file.size for file in files)
        task = f"Verifying {manifest.model}"
        with (
            Reporter(progress, task, len(files), total) as report,
            ThreadPoolExecutor(self._workers) as pool,
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

    def _folder(self, what: str) -> Folder:
        if isinstance(self._store, Folder):
            return self._store
        raise WeightsError(
            f"cannot {what} in the {self._store.where} from outside",
            hint="do it in a container that mounts the Volume, or deploy the model",
        )


def repository_name(model: str, variant: Variant) -> str:
    """The repository of a catalog name, or ``owner/name`` as it is."""
    from internvl_modal.models.catalogue import MODELS, find_model, unknown_model

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


def _repositories(model: str) -> tuple[str, ...]:
    """Where the files of a name may lie, in the order in which to look."""
    from internvl_modal.models.catalogue import find_model

    spec = None if "/" in model else find_model(model)
    return (spec.repo, spec.gguf) if spec and spec.gguf else (repository_name(model, "auto"),)


def _absent(folder: Folder, selection: Selection) -> WeightsError:
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


def _unknown(store: Store, model: str, revision: str | None) -> WeightsError:
    at = "" if revision is None else f" at {revision!r}"
    return WeightsError(
        f"{model}{at} is not in {store.where}",
        hint="internvl-modal weights list shows what is",
    )


@contextmanager
def _local_errors(store: Store) -> Iterator[None]:
    """Say which file or folder cannot be used; what a callback raised comes out as it is."""
    try:
        yield
    except CallbackError as failed:
        raise failed.error from failed.error.__cause__
    except OSError as error:
        cause = error.strerror or type(error).__name__
        full = error.errno in NO_ROOM
        raise WeightsError(
            f"cannot use {error.filename or store.where}: {cause}",
            hint=FREE_SPACE if full else "check the folder's permissions or choose another",
            destination=store.where,
        ) from error
