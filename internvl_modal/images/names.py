"""How a picture is called in errors and logs: short, and without secrets.

A name is written into errors, logs, progress and output files, so it must never hold a signed
query, a password, or the megabytes of a data URL.

>>> source_name("https://user:pw@example.com/cat.jpg?token=abc")
'https://example.com/cat.jpg'
>>> source_name(b"x" * 2_000_000)
'bytes (2 MB)'
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from internvl_modal.schema.inputs import BinaryFile, ImageSource

_NAME_LENGTH = 100


SCHEME = re.compile(r"([a-z][a-z0-9+.-]{1,20})://", re.IGNORECASE)
"""Two letters at least, or a Windows drive would be one."""


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
    # numpy has both, and its ``size`` is a number.
    size, shape = getattr(source, "size", None), getattr(source, "shape", None)
    if isinstance(shape, tuple):
        return f"array {shape}"
    if isinstance(size, tuple) and len(size) == 2:
        return f"PIL image {size[0]}x{size[1]}"
    return f"object of type {type(source).__name__}"


def _text_name(text: str) -> str:
    bare = text.strip()
    if is_data(bare):
        # Up to the comma only: the rest is the picture.
        media = bare[5:].partition(",")[0].partition(";")[0]
        return f"data URL ({_shorten(media) or 'no media type'}, {_amount(len(text))})"
    if SCHEME.match(bare):
        return url_name(bare)
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
    # Control characters in a file's name could rewrite a terminal.
    text = text[: 8 * _NAME_LENGTH]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    half = _NAME_LENGTH // 2
    return text if len(text) <= _NAME_LENGTH else f"{text[:half]}...{text[-half:]}"


def _amount(count: int) -> str:
    for unit, size in (("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.0f} {unit}"
    return f"{count} bytes"


def is_data(text: str) -> bool:
    """Whether ``text`` is a data URL, blanks before it aside."""
    return text.lstrip()[:5].lower() == "data:"


def is_url(text: str) -> bool:
    """Whether ``text`` is an http or https URL, blanks before it aside, as browsers have it."""
    return text.lstrip()[:8].lower().startswith(("http://", "https://"))
