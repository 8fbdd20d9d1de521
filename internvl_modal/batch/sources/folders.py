"""Pictures below a folder, and paths that fit a pattern.

``os.walk`` holds whole folders, hides errors and goes round in circles where links do; ``glob``
does the same. A data set of a million pictures with one unreadable folder must give all the others,
and say what is missing.
"""

# ruff: noqa: PTH112, PTH118, PTH206
# An object for each of a million paths costs more than the walk itself.

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import Any

from internvl_modal.batch.sources.unreadable import going_on, readable

_PICTURE = re.compile(
    r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|hei[cf]|avif|jp2|ppm)", re.IGNORECASE
)


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture.

    By name only: opening a million files to look would take hours on a network disk.

    >>> is_picture("IMG_1.HEIC"), is_picture("notes.txt")
    (True, False)
    """
    return _PICTURE.fullmatch(name, max(0, name.rfind("."))) is not None


@dataclass(frozen=True)
class _Folder:
    """A folder on the way down, and the stretches of real folders that links led through."""

    path: str
    entered: str
    """Where the last link led, in truth."""
    before: tuple[tuple[str, str], ...] = ()

    def list(self) -> Iterator[os.DirEntry[str]]:
        """What is in it, as the system lists it; raises ConfigError where it cannot."""
        with readable(self.path), os.scandir(self.path or os.curdir) as entries:
            yield from entries

    def below(self, entry: os.DirEntry[str]) -> _Folder | None:
        """The folder that ``entry`` is, unless it is none or leads back to one above."""
        path = os.path.join(self.path, entry.name)
        if entry.is_dir(follow_symlinks=False):
            return _Folder(path, self.entered, self.before)
        if not entry.is_symlink() or not os.path.isdir(path):
            return None
        real = os.path.realpath(path)
        passed = (*self.before, (self.entered, os.path.realpath(self.path)))
        # A link that leads to where we have come from, above or below, would go round.
        back = any(_is_in(real, top) and _is_in(bottom, real) for top, bottom in passed)
        return None if back else _Folder(path, real, passed)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip(os.sep)}{os.sep}")


def _top(path: str) -> _Folder:
    return _Folder(path, os.path.realpath(path))


def walk(path: str, wanted: Callable[[str], bool] = is_picture) -> Iterator[Any]:
    """Files below a folder as the system lists them; hidden ones are left out.

    Links to folders are followed, but for those that lead back. A folder below that cannot be
    listed is yielded as such; raises ConfigError where ``path`` itself cannot.
    """
    below: list[_Folder] = []
    yield from _files(_top(path), wanted, below)
    while below:
        each = below.pop()
        yield from going_on(each.path, _files(each, wanted, below))


def _files(folder: _Folder, wanted: Callable[[str], bool], below: list[_Folder]) -> Iterator[str]:
    """Its files that are wanted; ``below`` gets the folders in it, the first name last."""
    found = []
    for entry in folder.list():
        if entry.name.startswith("."):
            continue
        deeper = folder.below(entry)
        if deeper is not None:
            found.append(deeper)
        elif wanted(entry.name):
            yield os.path.join(folder.path, entry.name)
    # A stack: the first name is taken next, so folders come in order and memory is that of one path
    # down.
    below += sorted(found, key=lambda each: each.path, reverse=True)


def matching(pattern: str) -> Iterator[Any]:
    """Paths that fit, unsorted; a folder that cannot be listed is yielded as such.

    It matches as ``glob`` does, which passes over such folders, and goes round where links do.
    """
    parts = str(Path(pattern)).split(os.sep)
    fixed = 0
    while fixed < len(parts) - 1 and not has_magic(parts[fixed]):
        fixed += 1
    top = os.sep.join(parts[:fixed]) or (os.sep if fixed else "")
    if os.path.isdir(top or os.curdir):
        yield from _fitting(_top(top), parts[fixed:])


def _fitting(folder: _Folder, parts: list[str]) -> Iterator[Any]:
    first, rest = parts[0], parts[1:]
    path = os.path.join(folder.path, first)
    # A "**" at the end means all files below, as in ``glob`` with ``recursive=True``.
    if first == "**":
        for each in _tree(folder):
            yield from _fitting(each, rest or ["*"]) if isinstance(each, _Folder) else [each]
    elif has_magic(first) and not os.path.lexists(path):
        yield from going_on(folder.path, _listed(folder, first, rest))
    elif not rest and os.path.lexists(path):
        yield path
    elif rest and os.path.isdir(path):
        yield from _fitting(replace(folder, path=path), rest)


def _listed(folder: _Folder, pattern: str, rest: list[str]) -> Iterator[Any]:
    """What in a folder fits, and below that the rest."""
    fits = re.compile(fnmatch.translate(os.path.normcase(pattern))).match
    for entry in folder.list():
        hidden = entry.name.startswith(".") and not pattern.startswith(".")
        if hidden or not fits(os.path.normcase(entry.name)):
            continue
        if not rest:
            yield os.path.join(folder.path, entry.name)
        elif (deeper := folder.below(entry)) is not None:
            yield from _fitting(deeper, rest)


def _tree(folder: _Folder) -> Iterator[Any]:
    """A folder and all below it, and those that cannot be listed."""
    below = [folder]
    while below:
        each = below.pop()
        found: list[_Folder] = []
        lost = list(going_on(each.path, _files(each, lambda _: False, found)))
        yield from lost or [each]
        below += found
