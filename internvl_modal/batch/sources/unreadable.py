"""How a reader says that something cannot be read.

What is lost alone (a line, a row group, a folder within a folder) is yielded in its place as an
``Unreadable``, whose description fails with the reason. Where a source cannot be read further, its
reader raises ConfigError: as one of several it becomes an ``Unreadable`` too, alone it is raised
once all that it gave is described.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from internvl_modal.batch.signed_urls import without_secrets
from internvl_modal.errors import ConfigError, ImageError, OutOfResourcesError

Pair: TypeAlias = "tuple[str, Any]"
"""A key and a picture."""


class Unreadable:
    """Stands for what cannot be read: reading it says why.

    A source like any other, so that nothing along the way needs to know of it.
    """

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        self.name, self.reason, self._hint = name, reason, hint

    def __repr__(self) -> str:
        return f"Unreadable({self.name!r}, {self.reason!r})"

    def read(self, size: int = -1, /) -> bytes:
        """Raise ImageError."""
        raise ImageError(self.reason, source=self.name, hint=self._hint)


def unreadable(name: str, error: ConfigError) -> Pair:
    """In place of what ``name`` would have given further, told without what is secret in it."""
    name = without_secrets(name)
    reason = error.message.removeprefix(name).lstrip(": ")
    return name, Unreadable(name, reason, hint=error.hint)


_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}
"""What says nothing of a source: this machine has run out of something."""


def refused(name: str, error: OSError, reason: str = "") -> Exception:
    """What the system says of ``name``: ConfigError, unless this machine has run out."""
    message = f"{name} cannot be read: {reason or error.strerror or error}"
    if error.errno in _OURS:
        return OutOfResourcesError(message, hint="the same call goes on once there is more")
    return ConfigError(message, hint="check its name and its permissions")


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what the system says into an error that names the file."""
    try:
        yield
    except OSError as error:
        raise refused(name, error) from error


def going_on(name: str, found: Iterator[Any]) -> Iterator[Any]:
    """What one of several sources gives, and why it gives no more.

    Only ConfigError: that this machine has run out of something ends the batch.
    """
    try:
        yield from found
    except ConfigError as error:
        yield unreadable(name, error)
