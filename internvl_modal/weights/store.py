"""Where a cache lies: a folder, a Modal Volume mounted in a container, a Volume from outside."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, cast

from internvl_modal.errors import WeightsError
from internvl_modal.weights import layout
from internvl_modal.weights.lock import Entries, FolderLock, Lock, VolumeLock
from internvl_modal.weights.plain_files import make_folder, nearest, open_whole, refuse_links
from internvl_modal.weights.progress import CallbackError

if TYPE_CHECKING:
    from modal import Volume

__all__ = [
    "FREE_SPACE",
    "NO_ROOM",
    "Entry",
    "Folder",
    "MountedVolume",
    "RemoteVolume",
    "Store",
    "local_errors",
    "open_volume",
    "writing",
]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""EFBIG is a file that its file system cannot hold (FAT32's 4 GB), which asks for the
same remedy.
"""
FREE_SPACE = "free some space (internvl-modal weights prune) or choose another folder"
LOCKS = "internvl-modal-weights-locks"
"""The Dict with the locks of all Volumes of a Modal environment."""


@dataclass(frozen=True)
class Entry:
    """A stored file: bytes, and seconds since the epoch."""

    size: int
    mtime: float


class Store(Protocol):
    """What looking at a cache and removing from it needs; paths are relative, with slashes.

    The least that both kinds can do; what writes needs a ``Folder``.
    """

    where: str

    def lock(self, model: str, lost: threading.Event) -> Lock:
        """The lock of one model: who writes or removes any of its commits holds it."""

    def pull(self) -> None:
        """See what other machines have written."""

    def push(self) -> None:
        """Let other machines see what was written."""

    def entries(self, folder: str = "") -> Mapping[str, Entry]:
        """Every file below ``folder``."""

    def read(self, path: str) -> bytes:
        """The content of a small file."""

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds."""


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def lock(self, model: str, lost: threading.Event) -> Lock:
        """A lock file, in a folder made for it; flock is never lost."""
        path = PurePosixPath(layout.lock_file(model))
        return FolderLock(make_folder(self.root, str(path.parent)) / path.name)

    def pull(self) -> None:
        """Nothing to fetch: this machine sees its own files."""

    def push(self) -> None:
        """Nothing to send."""

    def entries(self, folder: str = "") -> Mapping[str, Entry]:
        """Every file below ``folder``."""
        found: dict[str, Entry] = {}
        for path, _, names in os.walk(self.root / folder):
            for name in names:
                file = Path(path, name)
                with suppress(FileNotFoundError):  # renamed meanwhile, or a link to nowhere
                    stat = file.stat()
                    place = file.relative_to(self.root).as_posix()
                    found[place] = Entry(stat.st_size, stat.st_mtime)
        return found

    def read(self, path: str) -> bytes:
        """The content of a small file; raises NotAFileError for what is none."""
        with open_whole(self.root / path) as file:
            return file.readall()

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds."""
        target = self.root / path
        refuse_links(self.root, str(PurePosixPath(path).parent))
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        with suppress(OSError):  # the first that holds something else
            # Empty folders of a model's owner would be listed for ever.
            for parent in PurePosixPath(path).parents[:-1]:
                (self.root / parent).rmdir()

    def free(self) -> int | None:
        """Bytes that can still be written; None where nobody can say."""
        return shutil.disk_usage(nearest(self.root)).free


class MountedVolume(Folder):
    """A Volume inside a container: written through its mount, shared by reload and commit.

    ``locks`` is where containers agree who writes to the Volume called ``name``; without it only
    the processes of this container do.

    Other containers see nothing before ``push``, and this one nothing of theirs before ``pull``.
    """

    def __init__(
        self, root: Path, volume: Volume, *, name: str = "", locks: Entries | None = None
    ) -> None:
        super().__init__(root)
        self._volume, self._name, self._locks = volume, name, locks

    def lock(self, model: str, lost: threading.Event) -> Lock:
        """An entry of the Dict, or the lock of a folder where there is none."""
        if self._locks is None:
            return super().lock(model, lost)
        return VolumeLock(self._locks, layout.volume_lock(self._name, model), lost=lost)

    def pull(self) -> None:
        """Reload the mount; no file of it may be open."""
        with _modal_errors(self.where):
            self._volume.reload()

    def push(self) -> None:
        """Commit what was written."""
        with _modal_errors(self.where):
            self._volume.commit()

    def free(self) -> int | None:
        """Unknown: a Volume has no size."""
        return None


class RemoteVolume:
    """A Volume from outside, through Modal's API: it can be listed and removed from.

    Slow for many files and without any way to write; the weights themselves never pass through
    here.
    """

    def __init__(self, name: str, volume: Volume, locks: Entries) -> None:
        self.where = f"Modal Volume {name}"
        self._name, self._volume, self._locks = name, volume, locks

    def lock(self, model: str, lost: threading.Event) -> Lock:
        """The same entry of the Dict as for those who have the Volume mounted."""
        return VolumeLock(self._locks, layout.volume_lock(self._name, model), lost=lost)

    def pull(self) -> None:
        """Raise WeightsError where there is no such Volume; every other call asks Modal anew."""
        with _modal_errors(self.where):
            self._volume.hydrate()

    def push(self) -> None:
        """Every call writes through."""

    def entries(self, folder: str = "") -> Mapping[str, Entry]:
        """Every file below ``folder``."""
        from modal.exception import NotFoundError

        with _modal_errors(self.where):
            try:
                found = self._volume.listdir(f"/{folder}", recursive=True)
            except NotFoundError:
                return {}
        return {
            entry.path.lstrip("/"): Entry(entry.size, entry.mtime)
            for entry in found
            if entry.type.name == "FILE"
        }

    def read(self, path: str) -> bytes:
        """The content of a small file."""
        with _modal_errors(self.where):
            return b"".join(self._volume.read_file(path))

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds."""
        with _modal_errors(self.where):
            self._volume.remove_file(path, recursive=True)


class _Locks:
    """A ``modal.Dict`` whose errors are ours."""

    def __init__(self, entries: Entries) -> None:
        self._entries, self._where = entries, f"Modal Dict {LOCKS}"

    def put(self, key: str, value: object, *, skip_if_exists: bool = False) -> bool:
        with _modal_errors(self._where):
            return self._entries.put(key, value, skip_if_exists=skip_if_exists)

    def get(self, key: str) -> object:
        with _modal_errors(self._where):
            return self._entries.get(key)

    def pop(self, key: str, default: object) -> object:
        with _modal_errors(self._where):
            return self._entries.pop(key, default)


@contextmanager
def writing(store: Store, model: str) -> Iterator[None]:
    """Keep others from writing a model, and see what they have written.

    A full disk may have no room for a lock either: what frees it goes on without one.
    """
    with ExitStack() as held:
        try:
            held.enter_context(store.lock(model, threading.Event()))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        store.pull()
        yield


@contextmanager
def _modal_errors(where: str) -> Iterator[None]:
    """Modal's own words hold no secret and say what is wrong."""
    import modal

    try:
        yield
    except (modal.exception.Error, ConnectionError, RuntimeError) as error:
        hint = "run `modal token new` where credentials are missing, and check the network"
        raise WeightsError(f"{where}: {error}", hint=hint) from error


def open_volume(name: str, environment: str | None, root: str | None) -> Store:
    """Reach a Volume through ``root`` where it is mounted, else through Modal's API."""
    import modal

    with _modal_errors(f"Modal Volume {name}"):
        volume = modal.Volume.from_name(name, environment_name=environment)
        found = modal.Dict.from_name(LOCKS, environment_name=environment, create_if_missing=True)
    locks = _Locks(cast(Entries, found))
    if root is not None:
        return MountedVolume(Path(root), volume, name=name, locks=locks)
    if not modal.is_local():
        raise WeightsError(
            f"the Volume {name} is not mounted here",
            hint="set INTERNVL_MODAL_WEIGHTS_ROOT to the path where it is mounted",
        )
    return RemoteVolume(name, volume, locks)


@contextmanager
def local_errors(store: Store) -> Iterator[None]:
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
