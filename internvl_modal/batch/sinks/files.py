"""Files that survive a full disk and a kill: replaced whole, beside the old one, errors named.

What a batch writes is paid for, so writing is where it must not fail in silence. POSIX promises
that a rename is whole and that ``O_APPEND`` writes at the end; everything here rests on these two.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from internvl_modal._utils.user_warning import warn_user
from internvl_modal.errors import ConfigError, InternVLError

REFUSED = {
    errno.EACCES, errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EISDIR,
    errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM,
}  # fmt: skip
"""What systems say to a name that they do not take, where another may do."""


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """Turn what the disk says into an error that names the file."""
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        if error.errno in (*REFUSED, errno.EROFS):
            raise ConfigError(message, hint="choose another out=") from error
        hint = "make room or choose another out=; the same call goes on where this one stopped"
        raise InternVLError(message, hint=hint) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once it is on the disk."""
    new = beside(path)
    with create(new) as file:
        yield file
        # Into the kernel, then to the disk, then the rename: in any other order a power cut can
        # leave an empty file under the good name.
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def beside(path: Path) -> Path:
    """Where a file is written that takes the place of ``path``."""
    return path.with_name(f".{path.name}.new")


def create(path: Path) -> BinaryIO:
    """A new file in place of what a killed process left there, and never through a link."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def check_name(path: Path) -> None:
    """Raise ConfigError for what no system takes for a name."""
    try:
        with full(path), contextlib.suppress(FileNotFoundError):
            path.lstat()
    except ValueError as error:  # a NUL, or what is no text
        message = f"{str(path)!r} is no name of a file"
        raise ConfigError(message, hint="choose another out=") from error


def check_regular(path: Path, *, linked: bool = True) -> None:
    """Raise ConfigError for a FIFO, a socket or a device, which keep nothing or wait for ever.

    ``linked``: whether a link is taken, as where a user names it; none is at a name that anybody
    can guess.
    """
    if not linked and path.is_symlink():
        raise ConfigError(f"{path} is a link", hint="remove it, or choose another out=")
    with full(path), contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder the system speaks
            raise ConfigError(f"{path} is no regular file", hint="choose another out=")


def take(path: Path, *, follow: bool, told: bool = False) -> int:
    """Open for appending and lock, so that no other batch writes the same file.

    ``follow`` links: those that a user names, none at a name that anybody can guess. ``told``:
    that nothing guards it has been said, where that is so.

    Returns the descriptor; the lock ends with it, also where the process is killed. Raises
    ConfigError where another batch holds it.
    """
    check_regular(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    # A link at a name that anybody can guess may lead to somebody's file.
    flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        if not _lock(descriptor, path) and not told:
            unguarded(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


def _lock(descriptor: int, path: Path) -> bool:
    """Lock it, and say whether that is possible here."""
    try:
        import fcntl

        # Does not wait: two batches into one file are a mistake and no queue.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        return False
    except BlockingIOError as error:
        raise ConfigError(
            f"another batch is writing {path}", hint="wait for it, or choose another out="
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def unguarded(name: object) -> None:
    """Say that two batches would write over each other there."""
    warn_user(f"nothing guards {name}: no other batch may write there meanwhile")
