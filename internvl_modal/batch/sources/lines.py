"""Lines of text files, in whatever encoding, with their numbers.

Lists come from Excel, from Windows shells (UTF-16) and from ``find`` (names of any bytes), and one
odd byte must not lose the rest.
"""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from internvl_modal.batch.sources.places import Place
from internvl_modal.errors import ConfigError

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The longer ones first: that of UTF-32 begins as that of UTF-16 does."""


@contextmanager
def lines_of(place: Place) -> Iterator[Iterator[tuple[int, str]]]:
    """Lines with their ends, from 1; bytes that are no UTF-8 are surrogates in them.

    Raises ConfigError that names the line where nothing more can be read.

    Surrogates keep a name's bytes: such a file can still be opened.
    """
    with place.open() as file:
        yield _lines(file, place.name)


def is_text(line: str) -> bool:
    """Whether a line was UTF-8, and no zeros, which a power cut leaves of a file's end."""
    if "\0" in line:
        return False
    return line.isascii() or not any("\udc80" <= c <= "\udcff" for c in line)


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    size = _size(file)
    text = io.TextIOWrapper(file, _encoding(file), errors="surrogateescape", newline="")
    number = 0
    try:
        for number, line in enumerate(text, 1):
            yield number, line
    except UnicodeError as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(
            f"{name}, line {number + 1}: {reason}", hint="save it as UTF-8 text"
        ) from error
    # Reading would end there as if all had been read.
    if size is not None and file.tell() < size:
        raise ConfigError(
            f"{name} became shorter while it was read, after line {number}", hint="run it again"
        )
    text.detach()


def _encoding(file: Any) -> str:
    """By the mark at its start; UTF-16 shows in the zero beside its first letter, too."""
    start = file.peek(4)[:4]
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if len(start) == 4 and start[1] == start[3] == 0 and start[0] and start[2]:
        return "utf-16-le"
    if len(start) == 4 and start[0] == start[2] == 0 and start[1] and start[3]:
        return "utf-16-be"
    return "utf-8"


def _size(file: BinaryIO) -> int | None:
    """How long a file on this machine is as it is opened."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
