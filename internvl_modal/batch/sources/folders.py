"""Pictures below a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from internvl_modal.batch.sources import manifests

_PICTURE = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|hei[cf]|avif|jp2|ppm)", re.IGNORECASE
)


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return _PICTURE.fullmatch(name, max(0, name.rfind("."))) is not None


def walk(folder: str) -> Iterator[Any]:
    """Pictures below ``folder``; raises ConfigError where it cannot be listed."""
    with manifests.readable(folder):
        yield from _walk(folder)


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[Any]:
    """Pictures below ``folder`` as the system lists them; hidden ones are left out.

    Links to folders are followed, but for those that lead back to one ``above``.
    """
    above = (*above, os.path.realpath(folder))
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - never raises
                if os.path.realpath(entry.path) not in above:
                    below.append(entry.path)
            elif is_picture(entry.name):
                yield entry.path
    for each in sorted(below):
        try:
            yield from _walk(each, above)
        except OSError as error:
            yield each, manifests.Unreadable(each, error)
