"""Name a picture's source and read its bytes: paths, URLs, data URLs, bytes, files."""

from __future__ import annotations

import binascii
import os
import re
import stat
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote_to_bytes

import pybase64

from internvl_modal.errors import ImageError
from internvl_modal.images.fetch import URL_BYTES
from internvl_modal.images.names import SCHEME, is_url, source_name
from internvl_modal.schema.inputs import BinaryFile

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{200,}={0,2}\s*")


class Fetch(Protocol):
    """Gets the bytes behind an http(s) URL, or raises ImageError."""

    def __call__(self, url: str, *, timeout: float, max_bytes: int, allow_private: bool) -> bytes:
        """Return the body."""
        ...


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
    if match := SCHEME.match(text):
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
