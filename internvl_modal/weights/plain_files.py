"""Files and folders of a cache, opened so that nothing is written through a link.

Names in a cache can be guessed, and others may be able to write to its folder: what they put at
such a name is not followed, waited for or taken for ours.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path, PurePosixPath

from internvl_modal.errors import WeightsError

__all__ = [
    "NotAFileError",
    "make_folder",
    "nearest",
    "open_new",
    "open_part",
    "open_whole",
    "refuse_links",
    "size",
    "write_all",
]

# A pipe must not keep who opens it; Windows has none of these, and O_BINARY instead.
_ASIS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))


class NotAFileError(OSError):
    """A link, a pipe, a folder or a device lies where a file should be."""


def nearest(path: Path) -> Path:
    """``path``, or the last folder on the way to it that is there."""
    while not path.exists():
        path = path.parent
    return path


def refuse_links(root: Path, place: str) -> None:
    """Raise WeightsError where a folder of the cache on the way to ``place`` is a link."""
    path = root
    for part in PurePosixPath(place).parts:
        path = path / part
        if path.is_symlink():
            raise WeightsError(
                f"{path} is a link, and nothing is written through one",
                hint="remove it; link the whole cache to another disk, or nothing in it",
                destination=str(root),
            )


def make_folder(root: Path, place: str) -> Path:
    """Make a folder of the cache, not through a link."""
    root.mkdir(parents=True, exist_ok=True)
    refuse_links(root, place)
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_whole(path: Path) -> FileIO:
    """Open a file to read; raises NotAFileError for a link, a pipe, a device."""
    try:
        file = FileIO(os.open(path, os.O_RDONLY | _ASIS), "rb")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise NotAFileError(error.errno, "it is no file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotAFileError(errno.EINVAL, "it is no file", str(path))
    return file


def open_new(path: Path) -> FileIO:
    """Make a file and open it to write; what lies there, such as a link, is removed."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _ASIS
    return FileIO(os.open(path, flags, 0o666), "ab")


def open_part(path: Path) -> FileIO:
    """Open a file to append to: an earlier run's, or a new one where that has another name too."""
    with suppress(OSError):  # none, or no file
        file = FileIO(os.open(path, os.O_WRONLY | os.O_APPEND | _ASIS), "ab")
        found = os.fstat(file.fileno())
        # With a second name it may be a whole model's file, which appending would damage.
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            return file
        file.close()
    return open_new(path)


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write every byte: a raw file may take fewer at once."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def size(path: Path) -> int | None:
    """Bytes of a file; None where there is none, or a link to one.

    ``lstat``: a link does not count as the file that it leads to.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
