"""Addresses that fsspec knows: ``s3://``, ``gs://``, ``hf://`` and its other kinds.

fsspec speaks to some thirty kinds of storage, each with errors of its own, which may repeat the
address with its password: all become one error that names it without.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from internvl_modal.batch.signed_urls import without_secrets
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.batch.sources.places import has_scheme, path_of
from internvl_modal.batch.sources.unreadable import refused
from internvl_modal.errors import ConfigError, ImageError, InternVLError, MissingExtraError
from internvl_modal.images.names import is_url, url_name

SILENCE = 60.0
"""Seconds that a web server may say nothing."""
_USER = re.compile(r"//([^/@]*)@")
_QUERY = re.compile(r"(?<=\S)\?[^\s'\")]*=[^\s'\")]*")
"""Of a URL in what libraries say, where a signature stands."""


@dataclass(frozen=True)
class RemoteFile:
    """A file behind an address, which is opened when it is needed.

    Small and picklable; it opens nothing until ``read``, and may be read again.
    """

    address: str = field(repr=False)

    def __repr__(self) -> str:
        return f"RemoteFile({self.name!r})"

    @property
    def name(self) -> str:
        """The address as keys and errors have it, without user, password and signature."""
        return without_secrets(self.address)

    def read(self, size: int = -1, /) -> bytes:
        """The bytes; raises ImageError."""
        try:
            with self.open() as file:
                data: bytes = file.read(size)
                return data
        except MissingExtraError:
            raise
        except ConfigError as error:
            reason = error.message.removeprefix(f"{self.name} ")
            raise ImageError(reason, source=self.name, hint=error.hint) from error

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file, read as it comes; raises ConfigError that names it."""
        with _told(self.address), _opened(self.address) as file:
            yield file

    def resolve(self, text: str) -> str:
        """A relative path is meant from the file's own folder."""
        if has_scheme(text):
            return text
        address = self.address.partition("?")[0] if is_url(self.address) else self.address
        return f"{address.rpartition('/')[0]}/{text}"


def kind(address: str) -> str:
    """``folder`` or ``file`` or, where nothing is, ''; raises ConfigError."""
    with _told(address):
        system, path = _system(address)
        if system.isdir(path):
            return "folder"
        return "file" if system.exists(path) else ""


def walk(address: str, wanted: Callable[[str], bool] = is_picture) -> Iterator[str]:
    """Addresses of the files below a folder; hidden ones are left out."""
    with _told(address):
        system, top = _system(address)
        for folder, below, files in system.walk(top, on_error="raise"):
            below_names = sorted(name for name in below if not name.startswith("."))
            _keep(below, below_names)
            for name in sorted(files):
                if not name.startswith(".") and wanted(name):
                    yield system.unstrip_protocol(f"{folder.rstrip('/')}/{name}")


def matching(pattern: str) -> Iterator[str]:
    """Addresses that fit a pattern; hidden ones only where it says so."""
    with _told(pattern):
        system, path = _system(pattern)
        for name in sorted(system.glob(path)):
            if "/." in path or "/." not in name:
                yield system.unstrip_protocol(name)


def _keep(below: Any, names: list[str]) -> None:
    """Let ``walk`` go on in these folders only."""
    if isinstance(below, dict):
        for name in set(below) - set(names):
            del below[name]
    else:
        below[:] = names


def _opened(address: str) -> BinaryIO:
    """A file that can ``peek``; of a web server, one that is read forward only, but for Parquet.

    Some web servers give no ranges. The size is said because it is not needed, and some never end
    their answer to the question for it.
    """
    system, path = _system(address)
    if not is_url(address) or path_of(address).lower().endswith(".parquet"):
        return io.BufferedReader(system.open(path, "rb"))
    return io.BufferedReader(_Body(system.open(path, "rb", block_size=0, size=1)))


class _Body(io.RawIOBase):
    """What a web server sends, as it comes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill it, or take what there is at the end."""
        filled = 0
        while filled < len(buffer) and (data := self._file.read(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            self._file.close()
        super().close()


def _system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("fsspec", "remote") from error
    try:
        system, path = url_to_fs(address, **(_patience() if is_url(address) else {}))
    # fsspec names the package that its kind of storage needs (s3fs, gcsfs).
    except ImportError as error:
        raise ConfigError(
            f"{url_name(address)} needs another package: {error}",
            hint="pip install 'internvl-modal[remote]' and that package",
        ) from error
    return system, os.fspath(path)


def _patience() -> dict[str, Any]:
    """For a web server: as long as it takes to describe what comes, but no silence."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": timeout}}


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what a file system raises into an error that names the address, without passwords."""
    name = without_secrets(address)
    try:
        yield
    except InternVLError:
        raise
    except OSError as error:
        raise refused(name, error, _words(error, address)) from _cause(error, name, address)
    except Exception as error:  # noqa: BLE001 - each kind has errors of its own
        raise ConfigError(
            f"{name} cannot be read: {_words(error, address)}", hint="check the address"
        ) from _cause(error, name, address)


def _cause(error: Exception, name: str, address: str) -> Exception | None:
    """The error itself, unless it may repeat what ``name`` leaves out."""
    return error if name == address else None


def _words(error: Exception, address: str) -> str:
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return "there is no such file"  # with the path alone, as most kinds say it
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    user = _USER.search(address)
    reason = _QUERY.sub("", reason.replace(f"{user[1]}@", "") if user else reason)
    return reason[:200] or type(error).__name__
