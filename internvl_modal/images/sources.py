"""Read the bytes of a picture's source: paths, URLs, data URLs, bytes, files.

Every source ends as bytes here, once; what they hold is judged by their content afterwards.
Fetching is handed in, so that this file, and ``estimate`` with it, works without a network.
"""

from __future__ import annotations

import binascii
import inspect
import os
import re
import stat
from pathlib import Path
from typing import Protocol, TypedDict
from urllib.parse import unquote_to_bytes

import pybase64

from internvl_modal._utils.local_trouble import is_local_trouble
from internvl_modal.errors import ImageError, OutOfResourcesError
from internvl_modal.images.names import SCHEME, is_url, source_name
from internvl_modal.schema.inputs import BinaryFile

FETCH_SECONDS = 30.0
"""Seconds for one picture where the caller names none."""
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{200,}={0,2}\s*")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

URL_BYTES = 100 * 2**20
"""Most bytes fetched for one picture."""
PIECE = 2**20
"""Bytes read at once of a file that has another size than the system says."""


class Fetch(Protocol):
    """Gets the bytes behind an http(s) URL, or raises ImageError.

    ``max_bytes`` bounds the body; ``timeout`` is in seconds for all of it.
    """

    def __call__(
        self,
        url: str,
        *,
        timeout: float,
        max_bytes: int,
        allow_private: bool,
        user_agent: str | None,
    ) -> bytes:
        """Return the body."""
        ...


class Reading(TypedDict, total=False):
    """How a source is read; see ``prepare``."""

    fetch: Fetch | None
    timeout: float
    allow_private_urls: bool
    user_agent: str | None
    max_pixels: int
    max_bytes_decoded: int


def read_bytes(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile,
    reading: Reading,
) -> bytes:
    """The encoded picture; raises ImageError that names ``source``, or OutOfResourcesError.

    A file object is read from where it stands to its end, and left open.
    """
    name = source_name(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, str) and source.lstrip()[:5].lower() == "data:":
        data = _read_data_url(source.strip(), name)
    elif isinstance(source, str) and is_url(source):
        # A line of a list keeps its end, and a cell its blanks: browsers drop them from a URL too.
        data = _fetched(source.strip(), name, reading)
    elif isinstance(source, (str, os.PathLike)):
        data = _read_path(source, name)
    else:
        data = _read_file(source, name)
    # An empty file is the usual trace of a download that failed.
    if not data:
        raise ImageError("empty, there are no bytes in it", source=name, hint=_why_empty(source))
    return data


def _fetched(url: str, name: str, reading: Reading) -> bytes:
    fetch = reading.get("fetch")
    if fetch is None:
        raise ImageError("no way to fetch URLs was given", source=name)
    return fetch(
        url,
        timeout=reading.get("timeout", FETCH_SECONDS),
        max_bytes=URL_BYTES,
        allow_private=reading.get("allow_private_urls", False),
        user_agent=reading.get("user_agent"),
    )


def _read_data_url(url: str, name: str) -> bytes:
    """As browsers do (WHATWG Fetch, 6): forgiving base64, and URL-safe letters besides."""
    header, comma, body = url[5:].partition(",")
    if not comma:
        raise ImageError("not a data URL: the comma is missing", source=name)
    raw = unquote_to_bytes(body.partition("#")[0])
    if "base64" not in (part.strip().lower() for part in header.split(";")[1:]):
        return raw
    raw = b"".join(raw.split()).translate(_URL_SAFE)
    if len(raw) % 4:
        raw += b"=" * (-len(raw) % 4) if b"=" not in raw else b""
    try:
        return pybase64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("the base64 of the data URL is broken", source=name) from error


def _read_path(path: str | os.PathLike[str], name: str) -> bytes:
    """A regular file's bytes. Devices and pipes could be read for ever, and are refused."""
    text = os.fsdecode(path)
    if not text:
        raise ImageError("an empty path", source=name, hint=_hint(text))
    if match := SCHEME.match(text):
        raise ImageError(
            f"{match[1]} URLs are not supported",
            source=name,
            hint="give an http(s) URL, a path, or the bytes",
        )
    try:
        return _read_regular(text, name)
    except (OSError, ValueError) as error:
        raise _unreadable(error, name, _hint(text)) from error


def _read_regular(path: str, name: str) -> bytes:
    """All of a regular file, in as few calls of the system as there may be.

    Each gives Python's lock away, and takes it again from an event loop that has more to do. What
    is none is not opened: that would wake whoever writes into a pipe.
    """
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        hint = "give one file in it, or all of it to describe_many"
        raise ImageError("a directory, not a picture", source=name, hint=hint)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file", source=name, hint="read it and give the bytes")
    # Without waiting, should it have become one.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        data = os.read(file, status.st_size + 1)
        if len(data) == status.st_size:
            return data
        parts = [data]  # it has changed, or the system reads less at once
        while parts[-1]:
            parts.append(os.read(file, PIECE))
        return b"".join(parts)
    finally:
        os.close(file)


def _unreadable(error: Exception, name: str, hint: str) -> ImageError | OutOfResourcesError:
    reason = getattr(error, "strerror", None) or str(error)
    if is_local_trouble(error):
        hint = "prepare fewer pictures at once, or raise the limit (ulimit -n)"
        return OutOfResourcesError(f"{name}: cannot be read: {reason}", hint=hint)
    return ImageError(f"cannot be read: {reason}", source=name, hint=hint)


def _hint(text: str) -> str:
    """What a text that is no path may have been meant as."""
    # Two hundred letters of base64's alphabet, without a single dot, are no path.
    if _BASE64.fullmatch(text):
        return "base64 text goes into a data URL: data:image/jpeg;base64,..."
    if text.startswith("~"):
        return "~ is not expanded: give the whole path"
    return "give a path, an http(s) URL, a data URL or the bytes of a picture"


def _read_file(file: BinaryFile, name: str) -> bytes:
    try:
        data: object = file.read()
    except (OSError, ValueError) as error:
        raise _unreadable(error, name, "") from error
    if inspect.isawaitable(data):
        if inspect.iscoroutine(data):
            data.close()  # else Python warns that nobody awaited it
        hint = "give what it holds: await file.read()"
        raise ImageError("its read() must be awaited", source=name, hint=hint)
    if not isinstance(data, bytes):
        raise ImageError("read() did not return bytes", source=name, hint="open it in mode 'rb'")
    return data


def _why_empty(source: object) -> str:
    """A hint for a file that was read before."""
    try:
        read_before = source.tell() > 0  # type: ignore[attr-defined]
    except (AttributeError, OSError, TypeError, ValueError):
        return ""
    return "it stands at its end: call seek(0) before" if read_before else ""
