"""A text file for each picture, and a journal of them all.

What trainers of diffusion models expect: ``cat.txt`` beside ``cat.jpg``. A folder may hold texts of
others, pictures of one stem (``cat.jpg``, ``cat.png``), keys that are URLs, and names that no
system takes; nobody's file is ever written over.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from internvl_modal.batch.outcome import Outcome, key_hash
from internvl_modal.batch.sinks.files import REFUSED, beside, create, full
from internvl_modal.batch.sinks.jsonl import JsonLines
from internvl_modal.batch.sinks.lines import Line, read_lines
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.errors import InternVLError
from internvl_modal.images.names import is_url

JOURNAL = ".internvl-modal.jsonl"
LONGEST = 225
"""Bytes of a name: systems take 255, and an ending is added to it.

Of UTF-8, as systems count.
"""


class Sidecars(JsonLines):
    """``photos/cat.jpg`` becomes ``photos/cat.txt`` in the folder, or beside it if it is there.

    The journal holds the lines that a ``.jsonl`` would, errors too, with the ``file`` of each text.
    It is what resuming reads, and it is on the disk before a text is: texts that were lost are
    made again from it, and a file that it does not name is somebody else's and stays.
    """

    def __init__(self, folder: Path, *, resume: bool, retry_errors: bool) -> None:
        super().__init__(folder / JOURNAL, resume=resume, retry_errors=retry_errors, named=False)
        self._folder = folder
        # Hashes of names and keys: a million of them fit into memory.
        self._owners: dict[int, int] = {}

    def open(self, run: str) -> None:
        """Read the journal: which names it has given away, and whether their texts are there."""
        super().open(run)
        restored = set()
        for file, line in self._texts():
            self._owners[_name_hash(file)] = key_hash(line.key)
            if file in restored or _is_lost(self._folder / file):
                path = self._folder / file
                with _unless_refused(path):  # it stays in the journal
                    _lay(path, line.document["text"])
                    beside(path).replace(path)
                restored.add(file)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """The lines first, then each text, whole or not at all.

        The text of an earlier prompt is gone before: a kill between the two leaves none, which
        the next run makes, rather than one that is not what the journal says.
        """
        self._renew(outcomes)
        documents = [self._line(each) for each in outcomes]
        files: list[Path] = []
        for outcome, document in zip(outcomes, documents, strict=True):
            if outcome.text is not None:
                document["file"] = file = self._lay_out(outcome.key, outcome.text)
                files.append(self._folder / file)
        self._append(documents, sync=bool(files))
        for path in files:
            with full(path):
                beside(path).replace(path)

    def clear(self) -> None:
        """Drop every line, and the texts they name."""
        for file, _ in self._texts():
            with _unless_refused(self._folder / file):
                (self._folder / file).unlink(missing_ok=True)
        self._owners.clear()
        super().clear()

    def _texts(self) -> Iterator[tuple[str, Line]]:
        """Names in the journal, and their lines; none that leads out of the folder."""
        for line in read_lines(self._path):
            path = Path(line.document.get("file") or "/")
            if not line.failed and not path.is_absolute() and ".." not in path.parts:
                yield path.as_posix(), line

    def _lay_out(self, key: str, text: str) -> str:
        """Write a text beside the first possible name that is the key's, or that nobody has."""
        mine = key_hash(key)
        for file in self._candidates(key, mine):
            path, name = self._folder / file, _name_hash(file)
            owner = self._owners.get(name)
            free = owner == mine or (owner is None and not os.path.lexists(path))
            if free and not self._is_in_a_text(Path(file)):
                with _unless_refused(path):
                    _lay(path, text)
                    if owner == mine:
                        path.unlink(missing_ok=True)
                    self._owners[name] = mine
                    return file
        raise InternVLError(
            f"{self._folder} takes no text for {key}",
            hint="make it writable or choose another out=",
        )

    def _candidates(self, key: str, mine: int) -> Iterator[str]:
        """What the text of ``cat.jpg`` may be called: cat.txt, cat.jpg.txt, cat.jpg.2.txt, ...

        Only endings of pictures are cut; 0.1.0 cut any, and what it called a text stays called so.
        """
        inside = self._inside(key)
        before = inside.with_suffix(".txt").as_posix()
        if self._owners.get(_name_hash(before)) == mine:
            yield before
        shown = self._inside(re.split("[?#]", key, maxsplit=1)[0]) if is_url(key) else inside
        if is_picture(shown.name):
            yield shown.with_suffix(".txt").as_posix()
        yield from _names(inside, f"{mine:016x}")

    def _is_in_a_text(self, file: Path) -> bool:
        """Whether a text is, or will be, where a folder of it should be."""
        return any(_name_hash(above.as_posix()) in self._owners for above in file.parents)

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


def _lay(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with create(beside(path)) as file:
        file.write(f"{text}\n".encode("utf-8", "replace"))


def _names(path: Path, digest: str) -> Iterator[str]:
    """Names with the whole key in them, then those of its ``digest``, at the top.

    If somebody has that too, one follows that nobody can have.
    """
    for ending in ("", *(f".{number}" for number in range(2, 10)), f".{digest}"):
        yield f"{path.as_posix()}{ending}.txt"
    yield f"{digest}.txt"
    yield f"{digest}-{secrets.token_hex(8)}.txt"


def _cut(name: str) -> str:
    """A name that every system takes; a hash tells apart those that are cut."""
    data = os.fsencode(name)
    if len(data) <= LONGEST:
        return name
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: LONGEST - 17].decode(errors='ignore')}-{digest}".replace(".", "_")


def _name_hash(file: str) -> int:
    # Case and composed accents do not tell files apart on macOS, nor case on Windows, and a folder
    # may be copied there.
    return key_hash(unicodedata.normalize("NFC", file).casefold())


def _is_lost(path: Path) -> bool:
    """Whether a text that was written is gone: a power cut leaves nothing or an empty file."""
    try:
        return path.stat().st_size == 0
    except OSError:
        return True


@contextmanager
def _unless_refused(path: Path) -> Iterator[None]:
    """Pass over a name that the system does not take; all else it says stops the batch."""
    with full(path):
        try:
            yield
        except ValueError:  # what Python takes for no name
            pass
        except OSError as error:
            if error.errno not in REFUSED:
                raise
