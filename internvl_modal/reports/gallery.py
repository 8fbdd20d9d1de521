"""The gallery of a file of captions: ``captions.html`` beside ``captions.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from internvl_modal._utils.short_errors import short_errors
from internvl_modal.batch.outcome import FIELDS
from internvl_modal.batch.sinks.files import check_name, check_regular, full, replacing
from internvl_modal.batch.sinks.lines import read_lines
from internvl_modal.batch.sinks.text_files import JOURNAL
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.captions.gallery import Caption, Row, page
from internvl_modal.captions.thumbnails import thumbnail
from internvl_modal.errors import ConfigError
from internvl_modal.images.names import is_url

__all__ = ["Places", "rows_of", "write_gallery", "write_page"]

MARK = '<meta name="robots" content="noindex">'
"""In every page of ours, and in hardly any other."""
_SHOWN = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".avif"}
"""What browsers show; of other pictures a small one is put into the page."""
THUMBNAILS = 5000
"""Small pictures in a page, some 10 KB each."""


@short_errors
def write_gallery(
    captions: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    pictures: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a page with the pictures of a ``.jsonl``, or of a folder of texts; returns its path.

    ``out``: where, in place of a ``.html`` beside it. ``pictures``: the folder that keys start at,
    where that is neither the present one nor that of the captions. Raises ConfigError for what no
    batch has written, and where another's file would be written over.
    """
    path = Path(captions)
    lines = path / JOURNAL if _is_file(path / JOURNAL) else path
    if not _is_file(lines):
        raise ConfigError(
            f"{path} is no file of captions", hint="give a .jsonl, or a folder of texts, of a batch"
        )
    if out is None:
        page_path = path / "gallery.html" if path.is_dir() else path.with_suffix(".html")
    else:
        page_path = Path(out)
    places = Places(
        page_path.parent, [Path(), lines.parent, *([Path(pictures)] if pictures else [])]
    )
    rows = list(rows_of(lines, places))
    models = dict.fromkeys(
        str(fact) for row in rows for each in row.answers if (fact := each.facts.get("model"))
    )
    return write_page(page_path, page(path.name, rows, facts=list(models)))


def write_page(path: Path, text: str) -> Path:
    """Write a page, whole or not at all; raises ConfigError where a stranger's would be lost."""
    check_name(path)
    check_regular(path)
    if path.exists():
        with full(path), path.open("rb") as file:
            if MARK.encode() not in file.read(4096):
                raise ConfigError(f"{path} is not a gallery's", hint="say where to write: out=")
    with full(path), replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    return path


def rows_of(path: Path, places: Places) -> Iterator[Row]:
    """The lines of a file as rows of a gallery."""
    for line in read_lines(path):
        document = line.document
        yield Row(line.key, _answers(document), places.source(line.key))


class Places:
    """Where the pictures of keys are, as seen from a page in ``folder``."""

    def __init__(self, folder: Path, roots: list[Path]) -> None:
        self._folder, self._roots = folder.absolute(), roots
        self._left = THUMBNAILS

    def source(self, key: str) -> str:
        """A URL that the page can load; "" where there is none."""
        if is_url(key):
            return key
        for root in self._roots:
            path = root / key
            if is_picture(key) and _is_file(path):
                return self._url(path)
        return ""

    def _url(self, path: Path) -> str:
        if path.suffix.lower() in _SHOWN:
            try:
                relative = os.path.relpath(path.absolute(), self._folder)
            except ValueError:  # on another drive
                return path.absolute().as_uri()
            # Bytes, as a name need not be Unicode; a colon in it must not look like a scheme.
            return quote(os.fsencode(Path(relative).as_posix()), safe="/")
        if self._left <= 0:
            return ""
        self._left -= 1
        return thumbnail(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a key that no system takes for a name
        return False


def _answers(document: Mapping[str, Any]) -> list[Caption]:
    """What was said of one picture: one caption, or one for each prompt."""
    facts, flags = _facts(document), [str(flag) for flag in document.get("flags") or []]
    error = document.get("error")
    if isinstance(error, dict):
        told = f"{error.get('type')}: {error.get('message')}"
        return [Caption(str(error.get("text") or ""), flags, told, facts=facts)]
    text = str(document.get("text") or "")
    fields = {name: value for name, value in document.items() if name not in FIELDS}
    texts = [value for value in fields.values() if isinstance(value, str)]
    if len(fields) > 1 and len(texts) == len(fields) and text == "\n\n".join(texts):
        return [
            Caption(str(value), _of(name, flags), name=name, facts={} if number else facts)
            for number, (name, value) in enumerate(fields.items())
        ]
    if fields:
        text = "\n".join(f"{name}: {_shown(value)}" for name, value in fields.items())
    return [Caption(text, flags, facts=facts)]


def _of(name: str, flags: list[str]) -> list[str]:
    """The flags of one prompt's answer."""
    return [flag.removeprefix(f"{name}: ") for flag in flags if flag.startswith(f"{name}: ")]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(document: Mapping[str, Any]) -> dict[str, object]:
    """What is told beside the large picture, as texts."""
    usage = document.get("usage") or {}
    found = {
        "model": document.get("model"),
        "prompt": document.get("prompt"),
        "tokens written": usage.get("completion_tokens"),
        "seconds": document.get("seconds"),
        "requests": document.get("attempts"),
        "tried": "; ".join(map(str, document.get("tried") or [])),
        "warnings": "; ".join(map(str, document.get("warnings") or [])),
        "request": document.get("request_id"),
        "run": document.get("run"),
    }
    return {name: _shown(value) for name, value in found.items() if value not in (None, "")}
