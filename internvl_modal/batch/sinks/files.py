"""Files that survive a full disk and a kill: replaced whole, beside the old one, errors named."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
    with new.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def beside(path: Path) -> Path:
    """Where a file is written that takes the place of ``path``."""
    return path.with_name(f".{path.name}.new")
