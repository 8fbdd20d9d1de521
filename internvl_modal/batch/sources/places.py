"""Where a source is: on this machine, or at an address that fsspec knows."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from internvl_modal.batch.sources.unreadable import readable
from internvl_modal.images.names import is_data, is_url, url_name

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class Place(Protocol):
    """One file that lists pictures or holds them.

    What a reader needs of a file, so that each is written once for disks and for addresses.
    """

    @property
    def name(self) -> str:
        """As errors and keys have it."""
        ...

    def open(self) -> Any:
        """A context that gives a binary file; raises ConfigError that names it."""
        ...

    def resolve(self, text: str) -> str:
        """Where a path in it leads."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A path."""

    name: str

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file; raises ConfigError where the system refuses, even in the middle."""
        with readable(self.name), Path(self.name).open("rb") as file:
            yield file

    def resolve(self, text: str) -> str:
        """A relative path is meant from the file's own folder."""
        if has_scheme(text):
            return text
        return os.path.join(os.path.dirname(self.name), text)  # noqa: PTH118, PTH120 - no ./ before


@dataclass(frozen=True)
class StandardInput:
    """What is piped into this process: read once, names in it as they are written."""

    name: str = "standard input"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Standard input; an empty one where there is none."""
        with readable(self.name):
            yield sys.stdin.buffer if sys.stdin else io.BufferedReader(io.BytesIO())

    def resolve(self, text: str) -> str:
        """From where the process is."""
        return text


def has_scheme(text: str) -> bool:
    """Whether ``text`` is a URL or another address, no path."""
    return _ADDRESS.match(text) is not None or is_data(text)


def is_remote(text: str) -> bool:
    """Whether ``text`` is an address that only fsspec can read."""
    return _ADDRESS.match(text) is not None and not is_url(text)


def path_of(name: str) -> str:
    """A path, or that of a URL: what is behind it may say anything.

    >>> path_of("https://example.com/shards/0.tar?X-Amz-Expires=60")
    '/shards/0.tar'
    """
    return urlsplit(name).path if is_url(name) else name


def shown(name: str) -> str:
    """A name for messages: of an address, without what may be secret."""
    return url_name(name) if _ADDRESS.match(name) else name
