"""WebDataset shards: tars in which each picture stands beside its text and its line.

A tar can be appended to, and a picture may be in memory and nowhere else: so each goes into the
shard as it is written, and then its line into a journal, with the place where the shard ends. What
a killed process wrote beyond that is cut off by the next run.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from internvl_modal.batch.outcome import Outcome, key_hash
from internvl_modal.batch.sinks.exports import journal_of
from internvl_modal.batch.sinks.files import check_regular, full
from internvl_modal.batch.sinks.jsonl import JsonLines
from internvl_modal.batch.sinks.lines import encode, read_lines
from internvl_modal.batch.sinks.pictures import Read
from internvl_modal.errors import ConfigError

SHARD_ROWS = 1000
SHARD_BYTES = 10**9
"""A shard is full at either; what is usual, so that readers can share them out."""

PATTERN = re.compile(r"%0?\d*d")
"""Where the number stands in a name, as WebDataset's own writer has it."""


class Shards(JsonLines):
    """A journal, and shards that are whole when they bear their name: ``name-000000.tar``."""

    def __init__(self, path: Path, *, resume: bool, retry_errors: bool, read: Read) -> None:
        self._pattern, self._read = path, read
        name = PATTERN.sub("shards", path.name)
        super().__init__(
            journal_of(path.with_name(name)), resume=resume, retry_errors=retry_errors, named=False
        )
        self._shard: BinaryIO | None = None
        self._number, self._rows, self._end = 0, 0, 0

    def open(self, run: str) -> None:
        """Read the journal, and cut off what is in a shard and not in it."""
        super().open(run)
        last: dict[str, Any] = {}
        rows: dict[int, int] = {}
        for line in read_lines(self._path):
            if (number := line.document.get("shard")) is not None:
                last, rows[number] = line.document, rows.get(number, 0) + 1
        self._number = int(last.get("shard", -1)) + 1
        if last and self._under_way(self._number - 1).exists():
            self._number -= 1
            self._rows = rows[self._number]
            self._go_on(int(last["end"]))

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Pictures and texts first, then their lines; what is described goes into the shard."""
        self._renew(outcomes)
        documents = []
        for outcome in outcomes:
            document = self._line(outcome)
            if outcome.ok:
                self._put(outcome, document)
            documents.append(document)
        if self._shard is not None and documents:
            with full(self._path):
                self._shard.flush()
                os.fsync(self._shard.fileno())  # a line must not say more than is there
        self._append(documents)
        if self._rows >= SHARD_ROWS or self._end >= SHARD_BYTES:
            self._finish()

    def close(self) -> None:
        """Give the last shard its end and its name."""
        try:
            if self._descriptor >= 0:
                self._finish()
        finally:
            super().close()

    def clear(self) -> None:
        """Drop every line, and the shards."""
        self._finish()
        numbers = {line.document.get("shard") for line in read_lines(self._path)}
        for number in numbers:
            if isinstance(number, int):
                with full(self._finished(number)):
                    self._finished(number).unlink(missing_ok=True)
        super().clear()
        self._number = 0

    def _finished(self, number: int) -> Path:
        name = self._pattern.name
        return self._pattern.with_name(PATTERN.sub(lambda found: found[0] % number, name))

    def _under_way(self, number: int) -> Path:
        path = self._finished(number)
        return path.with_name(f".{path.name}.open")

    def _go_on(self, end: int) -> BinaryIO:
        """Open the shard under way at its end as the journal has it; raises ConfigError."""
        path = self._under_way(self._number)
        check_regular(path, linked=False)
        with full(path):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            shard = os.fdopen(os.open(path, flags, 0o666), "r+b")
            size = shard.seek(0, os.SEEK_END)
            if size < end:  # only a power cut on a disk that forgets
                shard.close()
                raise ConfigError(
                    f"{path} is shorter than its journal says", hint="begin anew: resume=False"
                )
            shard.truncate(end)
            shard.seek(end)
        self._shard, self._end = shard, end
        return shard

    def _put(self, outcome: Outcome, document: dict[str, object]) -> None:
        """Add a picture with its text and its line to the shard."""
        shard = self._shard
        if shard is None:
            if os.path.lexists(self._finished(self._number)):
                raise ConfigError(
                    f"{self._finished(self._number)} is there and was not made by this batch",
                    hint="choose another out=",
                )
            with full(self._under_way(self._number)):
                self._under_way(self._number).unlink(missing_ok=True)
            shard = self._go_on(0)
        pictures = self._read(outcome)
        # Readers cut names at the first dot, and tell pictures apart by what is before it.
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(outcome.key).stem)[-80:]
        name = f"{stem}-{key_hash(outcome.identity):016x}"
        # Several pictures of one question are NAME.0.jpg, NAME.1.jpg and so on.
        numbers = [""] if len(pictures) == 1 else [f"{n}." for n in range(len(pictures))]
        members = [
            (f"{number}{ending}", data)
            for number, (data, ending) in zip(numbers, pictures, strict=True)
        ]
        text = (outcome.text or "").encode("utf-8", "replace")
        with full(self._path):
            for suffix, data in (*members, ("txt", text), ("json", encode(document))):
                shard.write(_member(f"{name}.{suffix}", data))
        self._rows += 1
        self._end = shard.tell()
        document |= {"shard": self._number, "end": self._end}

    def _finish(self) -> None:
        if self._shard is None:
            return
        with full(self._path), self._shard as shard:
            shard.write(b"\0" * 2 * tarfile.BLOCKSIZE)
            shard.flush()
            os.fsync(shard.fileno())
        with full(self._finished(self._number)):
            self._under_way(self._number).rename(self._finished(self._number))
        self._shard, self._rows, self._end = None, 0, 0
        self._number += 1


def _member(name: str, data: bytes) -> bytes:
    """A file in a tar: its header, its bytes, and zeros to the end of the block."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    held = io.BytesIO()
    held.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    held.write(data)
    held.write(b"\0" * (-len(data) % tarfile.BLOCKSIZE))
    return held.getvalue()
