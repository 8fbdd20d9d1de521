"""The weights cache: a model is complete and verified, or not there.

A download of 157 GB is cut off sooner or later, by a network, a disk or an impatient user, and a
server that loads half a model fails in ways that nobody understands. So a model is there when its
manifest is, which is written last, and everything before that can be continued or thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from internvl_modal._utils.short_errors import short_errors
from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights.inventory import (
    CachedModel,
    Snapshot,
    absent,
    find,
    inventory,
    manifests,
    not_cached,
)
from internvl_modal.weights.layout import Place, abbreviates
from internvl_modal.weights.progress import ProgressOption
from internvl_modal.weights.selection import Selection, Variant, repositories, repository_name
from internvl_modal.weights.store import Folder, Store, local_errors, open_volume, writing
from internvl_modal.weights.verification import Verification, verified

__all__ = ["WeightsCache"]


@short_errors
class WeightsCache:
    """Model files in a folder, or with :meth:`volume` in a Modal Volume.

    ``token`` None means ``HF_TOKEN`` or the login of huggingface_hub; ``endpoint`` None means
    ``HF_ENDPOINT`` or huggingface.co; ``workers`` files are fetched or verified at once.

    Safe for several threads, processes and machines: whoever writes a model holds its lock, whoever
    reads needs none. Nothing is asked of the Hub before ``ensure`` finds something missing.

    >>> cache = WeightsCache("~/models")  # doctest: +SKIP
    >>> path = cache.ensure("internvl2_5-8b")  # doctest: +SKIP
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        token: str | None = None,
        endpoint: str | None = None,
        workers: int = 8,
    ) -> None:
        if "\0" in os.fspath(root):
            raise ConfigError(f"{os.fspath(root)!r} names no folder", hint="leave the NUL out")
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
        with local_errors(folder):
            folder.pull()
            # Without the lock: a manifest appears by one rename.
            if found := find(folder, selection):
                return found
            if offline:
                raise absent(folder, selection)
            # Late: huggingface_hub takes half a second to import, and a complete model does not
            # need it.
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
        # From outside a Volume every byte would have to travel.
        if deep:
            self._folder("verify checksums")
        with local_errors(self._store):
            self._store.pull()
            return verified(
                self._store, model, revision, deep=deep, progress=progress, workers=self._workers
            )

    def list(self) -> tuple[CachedModel, ...]:
        """Every model in the cache, whole or not, by name and commit."""
        with local_errors(self._store):
            self._store.pull()
            return inventory(self._store)

    def remove(self, model: str, revision: str | None = None) -> tuple[CachedModel, ...]:
        """Remove a model, or one revision of it, and what stopped downloads left; say what went.

        A name of the catalog means what it means to ``verify``. Waits for a running download of
        it. Raises WeightsError when there is nothing to remove.
        """
        for name in repositories(model):
            # Under the lock, so that no download is pulled from under its feet.
            with local_errors(self._store), writing(self._store, name):
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
        raise not_cached(self._store, model, revision)

    def prune(self, keep: int = 1) -> tuple[CachedModel, ...]:
        """Keep the ``keep`` last used whole commits of each model, remove all else; say what went.

        Where none is whole damaged ones are kept. Waits for running downloads.
        """
        if keep < 0:
            raise ConfigError(f"keep={keep}: it is a number of commits", hint="0 removes all")
        going: list[CachedModel] = []
        for model in sorted({entry.model for entry in self.list()}):
            with local_errors(self._store), writing(self._store, model):
                mine = [entry for entry in self.list() if entry.model == model]
                # By use and not by age: a pinned old commit may be the one that serves.
                mine.sort(key=lambda entry: entry.last_used, reverse=True)
                known = {manifest.commit for manifest in manifests(self._store, model)}
                whole = [entry for entry in mine if entry.complete]
                kept = (whole or [entry for entry in mine if entry.commit in known])[:keep]
                going += self._discard([entry for entry in mine if entry not in kept])
                going += self._discard_unfinished(kept)
        return tuple(going)

    def _discard(self, going: Sequence[CachedModel]) -> tuple[CachedModel, ...]:
        for entry in going:
            place = Place(entry.model, entry.commit)
            # The model first: its manifest is in it, and what is half removed must not look whole.
            for path in (place.home, place.staging):
                if self._store.entries(path):
                    self._store.remove(path)
        self._store.push()
        return tuple(going)

    def _discard_unfinished(self, kept: Sequence[CachedModel]) -> Iterator[CachedModel]:
        """Remove what a stopped download has left beside models that are kept."""
        for entry in kept:
            # A repair that was stopped has left its files there, beside a model that is whole
            # again.
            path = Place(entry.model, entry.commit).staging
            if left := self._store.entries(path):
                self._store.remove(path)
                self._store.push()
                yield replace(entry, size=sum(e.size for e in left.values()), complete=False)

    def _folder(self, what: str) -> Folder:
        if isinstance(self._store, Folder):
            return self._store
        raise WeightsError(
            f"cannot {what} in the {self._store.where} from outside",
            hint="do it in a container that mounts the Volume, or deploy the model",
        )
