"""From a selection to a complete model: lock, ask the Hub, fetch what is missing, publish.

Files gather in a folder of their own. A new model appears by one rename of that folder with the
manifest in it; a repaired one gets its files one by one and the manifest last.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

from internvl_modal.errors import WeightsError, WeightsInterruptedError
from internvl_modal.transport.retry import Retry
from internvl_modal.weights import layout
from internvl_modal.weights.download import (
    BLOCK,
    Digest,
    Downloads,
    PartialFile,
    Stopped,
    hash_file,
)
from internvl_modal.weights.hub import Hub, Repository
from internvl_modal.weights.hub_errors import explain, transient
from internvl_modal.weights.inventory import (
    Snapshot,
    damage,
    find,
    manifests,
    sync_folder,
    write_manifest,
)
from internvl_modal.weights.layout import Place
from internvl_modal.weights.lock import Lock
from internvl_modal.weights.manifest import CachedFile, Manifest, RemoteFile
from internvl_modal.weights.plain_files import (
    make_folder,
    nearest,
    open_whole,
    refuse_links,
    size,
)
from internvl_modal.weights.progress import ProgressOption, Reporter
from internvl_modal.weights.selection import Selection, select
from internvl_modal.weights.store import FREE_SPACE, NO_ROOM, Folder

__all__ = ["Installation"]

ANSWERED = Retry(attempts=5, initial=0.5, maximum=60.0)
"""Where the Hub has answered, with 429 or 5xx."""
UNANSWERED = Retry(attempts=2, initial=0.5, maximum=0.5)
"""Without a Hub, to be told within ten seconds."""

logger = logging.getLogger("internvl_modal.weights")


@dataclass
class Installation:
    """One call of ``ensure`` that found nothing complete.

    Used once, by the thread that holds the lock. ``stop`` is set when the lock is lost.
    """

    folder: Folder
    selection: Selection
    hub: Hub
    progress: ProgressOption
    workers: int
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Snapshot:
        """Install under the model's lock; who waited for it may find the work done."""
        try:
            with self.folder.lock(self.selection.model, self.stop) as lock:
                self.folder.pull()
                # Looked for again under the lock: while we waited another may have done it.
                return find(self.folder, self.selection) or self._install(lock)
        except KeyboardInterrupt as error:
            raise WeightsInterruptedError(
                f"{self.selection.model}: interrupted",
                hint="run this again: it continues where it stopped",
                destination=self.folder.where,
            ) from error

    def _install(self, lock: Lock) -> Snapshot:
        """Complete the model; raises WeightsError when another has taken the lock meanwhile."""
        try:
            manifest = self._complete()
            # Looked at before the one step that others would see.
            if lock.taker:
                raise Stopped
            return self._publish(manifest)
        except Stopped as error:
            raise WeightsError(
                f"{self.selection.model}: the lock of this download was lost to "
                f"{lock.taker or 'another process'}",
                hint="run this again: it waits until that one is done",
            ) from error

    def _complete(self) -> Manifest:
        """Bring every file of the model together, and say what it then consists of."""
        repository = self._resolve()
        variant, wanted = select(self.selection, repository.files)
        old = self._present(repository)
        broken = set(damage(self.folder, old)) if old else set()
        # What is whole stays where it is: a repair of one shard fetches one shard.
        whole = {file.path: file for file in old.files if file.path not in broken} if old else {}
        missing = {file.path: file for file in wanted if file.path not in whole}
        missing |= {f.path: f for f in repository.files if f.path in broken}
        place = Place(repository.name, repository.commit)
        self._tell_of_code(wanted, repository.commit)
        fetched = self._completed(repository, place, missing.values())
        return Manifest(
            model=repository.name,
            commit=repository.commit,
            source=self.hub.endpoint,
            time=old.time if old and not self._moved(old) else datetime.now(timezone.utc),
            revisions=_merged(old.revisions if old else (), self.selection.revision),
            variants=_merged(old.variants if old else (), variant),
            files=tuple(sorted((*whole.values(), *fetched), key=lambda file: file.path)),
        )

    def _resolve(self) -> Repository:
        """Ask for the commit and its files; without a Hub this takes less than ten seconds."""
        attempt, selection = 0, self.selection
        while True:
            try:
                return self.hub.repository(selection.model, selection.revision)
            except Exception as error:
                attempt += 1
                rule = UNANSWERED if getattr(error, "response", None) is None else ANSWERED
                passing = transient(error)
                delay = rule.pause(attempt, passing, math.inf) if passing else None
                if delay is None:
                    told = explain(error, selection.model, selection.revision, None, self.hub)
                    if told is None:
                        raise
                    raise self._with_place(told) from told.__cause__
                time.sleep(delay)

    def _present(self, repository: Repository) -> Manifest | None:
        """What is already here of this commit, whole or damaged."""
        found = manifests(self.folder, repository.name)
        return next((m for m in found if m.commit == repository.commit), None)

    def _moved(self, old: Manifest) -> bool:
        """Whether the name asked by has been another commit's too: the newest one has it."""
        others = (m for m in manifests(self.folder, old.model) if m.commit != old.commit)
        return any(self.selection.revision in other.revisions for other in others)

    def _tell_of_code(self, wanted: Iterable[RemoteFile], commit: str) -> None:
        # Told before it is fetched: whoever serves the model runs this code.
        if code := [file.path for file in wanted if file.path.endswith(".py")]:
            logger.info(
                "%s brings Python that LMDeploy runs (%s): that of commit %s, and no other",
                self.selection.model,
                ", ".join(code),
                commit,
            )

    def _completed(
        self, repository: Repository, place: Place, missing: Iterable[RemoteFile]
    ) -> list[CachedFile]:
        """Gather the files, or say what stopped that and what is left of it."""
        try:
            return self._gather(repository, place, missing)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # On a full disk the half model would be in the way of everything else.
            shutil.rmtree(self.folder.root / place.staging, ignore_errors=True)
            self.folder.push()
            raise self._no_room(error.strerror or str(error.errno)) from error
        except KeyboardInterrupt:
            with suppress(WeightsError):  # a Volume is committed when its container ends, too
                self.folder.push()
            raise

    def _gather(
        self, repository: Repository, place: Place, missing: Iterable[RemoteFile]
    ) -> list[CachedFile]:
        """Bring the files into the staging folder: left there before, equal elsewhere, or fetched.

        What is already whole where the model will be stays there.
        """
        staging = make_folder(self.folder.root, place.staging)
        home = self.folder.root / place.home
        self._check_disk(staging, home)
        refuse_links(self.folder.root, place.home)
        local: dict[str, CachedFile | None] = {}
        unlinked: dict[str, list[Path]] = {}
        # Equal files of other commits are linked first: most commits of a model change a README.
        for file in missing:
            local[file.path], unlinked[file.path] = self._linked(staging, home, file)
        self._check_room(sum(_left(staging, f) for f in missing if local[f.path] is None))
        for file in missing:
            for source in unlinked[file.path]:
                local[file.path] = local[file.path] or self._copy(source, staging, file)
        fetch = [file for file in missing if local[file.path] is None]
        total = sum(file.size for file in missing)
        already = total - sum(_left(staging, file) for file in fetch)
        task = f"Fetching {repository.name}"
        done = len(local) - len(fetch)
        with Reporter(self.progress, task, len(local), total, done=done, already=already) as report:
            downloads = Downloads(
                self.hub, repository, staging, report=report, workers=self.workers, stop=self.stop
            )
            fetched = downloads.run(fetch)
        return [*(file for file in local.values() if file), *fetched]

    def _linked(
        self, staging: Path, home: Path, file: RemoteFile
    ) -> tuple[CachedFile | None, list[Path]]:
        """Find a file in ``staging`` or at ``home``, or link its equal; verified.

        Where it could not be linked, its equals come with the None.
        """
        target = staging / file.path
        # Hashed, since a crash may have left anything under the right name.
        if found := self._read(target, file) or self._read(home / file.path, file):
            return found, []
        make_folder(staging, str(PurePosixPath(file.path).parent))
        unlinked = []
        for source in self._equals(file):
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:  # a file system without hard links
                unlinked.append(source)
            else:
                if found := self._read(target, file):
                    return found, []
        target.unlink(missing_ok=True)
        return None, unlinked

    def _copy(self, source: Path, staging: Path, file: RemoteFile) -> CachedFile | None:
        """Copy as a download that goes on where the last one stopped, verified on the way."""
        target = staging / file.path
        part = staging / layout.part_file(file.path)
        with PartialFile(part, file, self.stop, lambda _: None) as sink:
            with open_whole(source) as content:
                content.seek(sink.size)
                while block := content.read(BLOCK):
                    sink.write(block)
            sink.sync()
            found = sink.digest.verified()
        if found:
            part.replace(target)
        else:
            part.unlink()
        return found

    def _equals(self, file: RemoteFile) -> Iterator[Path]:
        for manifest in manifests(self.folder, self.selection.model):
            # By content and not by name: a file that was renamed between commits is still the same.
            for other in manifest.files:
                if other.oid == file.oid and other.path not in manifest.bad:
                    path = self.folder.root / manifest.place.home / other.path
                    if size(path) == file.size:
                        yield path

    def _read(self, path: Path, file: RemoteFile) -> CachedFile | None:
        if size(path) != file.size:
            return None
        digest = Digest(file)
        try:
            hash_file(path, digest, lambda _: None, self.stop)
        except OSError:  # what cannot be read is fetched
            return None
        if self.stop.is_set():
            raise Stopped
        return digest.verified()

    def _publish(self, manifest: Manifest) -> Snapshot:
        root, place = self.folder.root, manifest.place
        home, staging = root / place.home, root / place.staging
        if home.exists():
            for file in manifest.files:
                if size(staging / file.path) is not None:
                    make_folder(home, str(PurePosixPath(file.path).parent))
                    (staging / file.path).replace(home / file.path)
            write_manifest(home, manifest)
            shutil.rmtree(staging)
        else:
            _strip(staging, set(manifest.paths))
            write_manifest(staging, manifest)
            make_folder(root, manifest.model)
            staging.rename(home)
            # The rename itself is on the disk only when its folder is.
            sync_folder(home.parent)
        self.folder.push()
        return Snapshot(home, manifest.model, manifest.commit, manifest.paths)

    def _check_disk(self, staging: Path, home: Path) -> None:
        """No rename leads to another disk: say so before the first byte."""
        if nearest(home).stat().st_dev != staging.stat().st_dev:
            raise self._with_place(
                WeightsError(
                    f"{home} would lie on another disk than {staging}",
                    hint="link the whole cache to that disk, or nothing in it",
                )
            )

    def _check_room(self, needed: int) -> None:
        free = self.folder.free()
        if free is not None and needed > free:
            raise self._no_room(f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")

    def _no_room(self, cause: str) -> WeightsError:
        return self._with_place(
            WeightsError(f"{self.selection.model}: the disk is full: {cause}", hint=FREE_SPACE)
        )

    def _with_place(self, error: WeightsError) -> WeightsError:
        error.files = error.files or self.selection.names or ()
        error.destination = str(self.folder.root / self.selection.model)
        return error


def _merged(old: tuple[str, ...], new: str | None) -> tuple[str, ...]:
    return tuple(sorted({*old, new} if new else old))


def _left(staging: Path, file: RemoteFile) -> int:
    """Bytes that a file in ``staging`` lacks."""
    return file.size - (size(staging / layout.part_file(file.path)) or 0)


def _strip(folder: Path, keep: set[str]) -> None:
    """Remove what an earlier download with another selection left behind, and every link."""
    for path in list(folder.rglob("*")):
        kept = path.relative_to(folder).as_posix() in keep
        if path.is_symlink() or (path.is_file() and not kept):
            path.unlink()
