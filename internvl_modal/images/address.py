"""Name a picture's source and read its bytes: paths, URLs, data URLs, bytes, files."""

from __future__ import annotations

import binascii
import os
import re
import stat
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote_to_bytes, urlsplit

import pybase64

from internvl_modal.errors import ImageError
from internvl_modal.schema import BinaryFile, ImageSource

URL_BYTES = 100 * 2**20
"""Most bytes fetched for one picture."""

_NAME_LENGTH = 100
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{1,20})://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{200,}={0,2}\s*")


class Fetch(Protocol):
    """Gets the bytes behind an http(s) URL, or raises ImageError."""

    def __call__(self, url: str, *, timeout: float, max_bytes: int, allow_private: bool) -> bytes:
        """Return the body."""
        ...


def source_name(source: ImageSource) -> str:
    """A short name for messages, without secrets and without the picture itself."""
    if isinstance(source, str):
        return _text_name(source)
    if isinstance(source, os.PathLike):
        return _shorten(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"bytes ({_amount(memoryview(source).nbytes)})"
    if isinstance(source, BinaryFile):
        name = getattr(source, "name", None)
        return f"file {_shorten(name)}" if isinstance(name, str) else "file"
    return _object_name(source)


def _object_name(source: object) -> str:
    size, shape = getattr(source, "size", None), getattr(source, "shape", None)
    if isinstance(shape, tuple):
        return f"array {shape}"
    if isinstance(size, tuple) and len(size) == 2:
        return f"PIL image {size[0]}x{size[1]}"
    return f"object of type {type(source).__name__}"


def _text_name(text: str) -> str:
    if text[:5].lower() == "data:":
        media = text[5:].partition(",")[0].partition(";")[0]
        return f"data URL ({_shorten(media) or 'no media type'}, {_amount(len(text))})"
    if _SCHEME.match(text):
        return url_name(text)
    return _shorten(text) or "''"


def url_name(url: str) -> str:
    """The URL without user, password, query and fragment: those may hold secrets."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or ""
    except ValueError:
        return "URL that cannot be read"
    host = f"[{host}]" if ":" in host else host
    return _shorten(f"{parts.scheme}://{host}{port}{parts.path}")


def _shorten(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text[: 8 * _NAME_LENGTH])
    half = _NAME_LENGTH // 2
    return text if len(text) <= _NAME_LENGTH else f"{text[:half]}...{text[-half:]}"


def _amount(count: int) -> str:
    for unit, size in (("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.0f} {unit}"
    return f"{count} bytes"


def is_url(text: str) -> bool:
    """Whether ``text`` is an http or https URL."""
    return text[:8].lower().startswith(("http://", "https://"))


def read_bytes(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile,
    *,
    fetch: Fetch | None,
    timeout: float,
    allow_private: bool,
) -> bytes:
    """The encoded picture; raises ImageError that names ``source``."""
    name = source_name(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, str) and source[:5].lower() == "data:":
        data = _read_data_url(source, name)
    elif isinstance(source, str) and is_url(source):
        if fetch is None:
            raise ImageError("no way to fetch URLs was given", source=name)
        data = fetch(source, timeout=timeout, max_bytes=URL_BYTES, allow_private=allow_private)
    elif isinstance(source, (str, os.PathLike)):
        data = _read_path(source, name)
    else:
        data = _read_file(source, name)
    if not data:
        raise ImageError("empty, there are no bytes in it", source=name)
    return data


def _read_data_url(url: str, name: str) -> bytes:
    header, comma, body = url[5:].partition(",")
    if not comma:
        raise ImageError("not a data URL: the comma is missing", source=name)
    raw = unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return raw
    try:
        return pybase64.b64decode(b"".join(raw.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("the base64 of the data URL is broken", source=name) from error


def _read_path(path: str | os.PathLike[str], name: str) -> bytes:
    text = os.fsdecode(path)
    if not text:
        raise ImageError("an empty path", source=name, hint=_hint(text))
    if match := _SCHEME.match(text):
        raise ImageError(
            f"{match[1]} URLs are not supported",
            source=name,
            hint="give an http(s) URL, a path, or the bytes",
        )
    try:
        status = Path(text).stat()
        if stat.S_ISDIR(status.st_mode):
            hint = "give one file in it, or all of it to describe_many"
            raise ImageError("a directory, not a picture", source=name, hint=hint)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file", source=name, hint="read it and give the bytes")
        return Path(text).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"cannot be read: {reason}", source=name, hint=_hint(text)) from error


def _hint(text: str) -> str:
    if _BASE64.fullmatch(text):
        return "base64 text goes into a data URL: data:image/jpeg;base64,..."
    if text.startswith("~"):
        return "~ is not expanded: give the whole path"
    return "give a path, an http(s) URL, a data URL or the bytes of a picture"


def _read_file(file: BinaryFile, name: str) -> bytes:
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read: {error}", source=name) from error
    if not isinstance(data, bytes):
        raise ImageError("read() did not return bytes", source=name, hint="open it in mode 'rb'")
    return data
