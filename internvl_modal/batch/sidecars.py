"""A text file for each picture, and a journal of them all."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from internvl_modal.batch.lines import Line, read_lines
from internvl_modal.batch.outcome import Outcome, key_hash, record
from internvl_modal.batch.sinks import JsonLines, full, replacing
from internvl_modal.images.address import is_url

JOURNAL = ".internvl-modal.jsonl"
LONGEST = 235
"""Bytes of a name: systems take 255, and an ending is added to it."""


class Sidecars(JsonLines):
    """``photos/cat.jpg`` becomes ``photos/cat.txt`` in the folder, or beside it if it is there.

    The journal holds the lines that a ``.jsonl`` would, errors too, with the ``file`` of each text.
    It is what resuming reads, and it is on the disk before a text is: texts that were lost are
    made again from it, and a file that it does not name is somebody else's and stays.
    """

    def __init__(self, folder: Path, *, resume: bool, retry_errors: bool) -> None:
        super().__init__(folder / JOURNAL, resume=resume, retry_errors=retry_errors)
        self._folder = folder
        self._owners: dict[int, int] = {}

    def open(self, run: str) -> None:
        """Read the journal: which names it has given away, and whether their texts are there."""
        super().open(run)
        restored = set()
        for file, line in self._texts():
            self._owners[_name_hash(file)] = key_hash(line.key)
            if file in restored or _is_lost(self._folder / file):
                self._put(file, line.document["text"])
                restored.add(file)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """The lines first, then each text, whole or not at all."""
        documents = [record(outcome, self._run) for outcome in outcomes]
        texts: list[tuple[str, str]] = []
        for outcome, document in zip(outcomes, documents, strict=True):
            if outcome.text is not None:
                document["file"] = file = self._file_for(outcome.key)
                texts.append((file, outcome.text))
        self._append(documents)
        self._sync()
        for file, text in texts:
            self._put(file, text)

    def clear(self) -> None:
        """Drop every line, and the texts they name."""
        for file, _ in self._texts():
            (self._folder / file).unlink(missing_ok=True)
        super().clear()

    def _texts(self) -> Iterator[tuple[str, Line]]:
        """Names in the journal, and their lines; none that leads out of the folder."""
        for line in read_lines(self._path):
            path = Path(line.document.get("file") or "/")
            if not line.failed and not path.is_absolute() and ".." not in path.parts:
                yield path.as_posix(), line

    def _put(self, file: str, text: str) -> None:
        path = self._folder / file
        with full(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, sync=False) as opened:
                opened.write(f"{text}\n".encode("utf-8", "replace"))

    def _file_for(self, key: str) -> str:
        """The first name that is the key's already, or that nobody has."""
        mine = key_hash(key)
        for file in _names(self._inside(key)):
            owner = self._owners.get(_name_hash(file))
            if owner is None and not os.path.lexists(self._folder / file):
                self._owners[_name_hash(file)] = owner = mine
            if owner == mine:
                return file
        raise AssertionError("unreachable")

    def _inside(self, key: str) -> Path:
        """Where in the folder the text of a key belongs, but for the ending."""
        try:
            os.fsencode(key)
            inside = os.path.relpath(key, self._folder)
        except ValueError:  # no name of a file, or on another drive of Windows
            inside = ".."
        if inside.startswith("..") or is_url(key) or "\0" in key:
            inside = re.sub(r"[^\w./-]+", "_", key.replace("\\", "/"))
        path = Path(inside)
        parts = [_cut(part) for part in path.parts if part not in (path.anchor, "..")]
        return Path(*parts or "_")


def _names(path: Path) -> Iterator[str]:
    """What the text of ``cat.jpg`` may be called: cat.txt, cat.jpg.txt, cat.jpg.2.txt, ..."""
    yield path.with_suffix(".txt").as_posix()
    yield f"{path.as_posix()}.txt"
    for number in count(2):
        yield f"{path.as_posix()}.{number}.txt"


def _cut(name: str) -> str:
    """A name that every system takes; a hash tells apart those that are cut."""
    data = os.fsencode(name)
    if len(data) <= LONGEST:
        return name
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: LONGEST - 17].decode(errors='ignore')}-{digest}".replace(".", "_")


def _name_hash(file: str) -> int:
    return key_hash(file.casefold())


def _is_lost(path: Path) -> bool:
    """Whether a text that was written is gone: a power cut leaves nothing or an empty file."""
    try:
        return path.stat().st_size == 0
    except (FileNotFoundError, NotADirectoryError):
        return True
