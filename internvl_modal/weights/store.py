"""Where a cache lies: a folder, a Modal Volume mounted in a container, a Volume from outside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from internvl_modal.errors import WeightsError

if TYPE_CHECKING:
    from modal import Volume

__all__ = ["Entry", "Folder", "MountedVolume", "RemoteVolume", "Store", "nearest"]


@dataclass(frozen=True)
class Entry:
    """A stored file: bytes, and seconds since the epoch."""

    size: int
    mtime: float


def nearest(path: Path) -> Path:
    """``path``, or the last folder on the way to it that is there."""
    while not path.exists():
        path = path.parent
    return path


class Store(Protocol):
    """What looking at a cache and removing from it needs; paths are relative, with slashes."""

    where: str

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

    shared = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

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
        """The content of a small file."""
        return (self.root / path).read_bytes()

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds."""
        target = self.root / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        with suppress(OSError):  # the first that holds something else
            for parent in PurePosixPath(path).parents[:-1]:
                (self.root / parent).rmdir()

    def free(self) -> int | None:
        """Bytes that can still be written; None where nobody can say."""
        return shutil.disk_usage(nearest(self.root)).free


class MountedVolume(Folder):
    """A Volume inside a container: written through its mount, shared by reload and commit."""

    shared = True

    def __init__(self, root: Path, volume: Volume) -> None:
        super().__init__(root)
        self._volume = volume

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
    """A Volume from outside, through Modal's API: it can be listed and removed from."""

    def __init__(self, name: str, volume: Volume) -> None:
        self.where = f"Modal Volume {name}"
        self._volume = volume

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
    if root is not None:
        return MountedVolume(Path(root), volume)
    if not modal.is_local():
        raise WeightsError(
            f"the Volume {name} is not mounted here",
            hint="set INTERNVL_MODAL_WEIGHTS_ROOT to the path where it is mounted",
        )
    return RemoteVolume(name, volume)
