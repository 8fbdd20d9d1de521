"""TIFF directories (TIFF 6.0, BigTIFF), which EXIF blocks are made of as well.

A directory can name itself as its successor, and an entry can claim a billion values: both are read
by decoders, and by whoever reads EXIF. Everything is bounded here first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from internvl_modal.images.survey.result import FRAMES, Survey, UnfitError

ENTRIES = 4_096
"""Most entries of a directory; real ones have about twenty."""
STRIPS = 100_000
"""Most strips or tiles of a page."""
PRIVATE = 32_768
"""Tags from here on belong to programs, some of which write wrong offsets."""
EXIF_BYTES = 1_000_000
"""Most bytes that the values of an EXIF block may have together.

A preview inside is some 10 KB; makers' notes reach 100 KB.
"""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}
_OFFSETS, _LENGTHS = (273, 324), (279, 325)

Endian = Literal["little", "big"]


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    where: int
    """Offset of the value in the file."""

    @property
    def size(self) -> int:
        return self.count * _SIZES.get(self.kind, 1)


@dataclass(frozen=True)
class _Tiff:
    """How the numbers of one file are written."""

    data: bytes
    endian: Endian
    big: bool

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], self.endian)

    @property
    def first(self) -> int:
        return self.number(8, 8) if self.big else self.number(4, 4)

    def count(self, at: int) -> int:
        return self.number(at, 8 if self.big else 2)

    def following(self, at: int) -> int:
        """Offset of the next directory, 0 after the last; -1 where the file ends before."""
        head, entry, pointer = (8, 20, 8) if self.big else (2, 12, 4)
        where = at + head + entry * self.count(at)
        return self.number(where, pointer) if where + pointer <= len(self.data) else -1

    def entries(self, at: int) -> Iterator[_Entry]:
        """The entries of a directory; a value of up to four bytes (eight in BigTIFF) stands in its
        own entry.
        """
        head, entry, short = (8, 20, 8) if self.big else (2, 12, 4)
        for start in range(at + head, at + head + entry * self.count(at), entry):
            kind, count = self.number(start + 2, 2), self.number(start + 4, short)
            inline = start + 4 + short
            fits = count * _SIZES.get(kind, 1) <= short
            where = inline if fits else self.number(inline, short)
            yield _Entry(self.number(start, 2), kind, count, where)


def _reader(data: bytes) -> _Tiff:
    """How to read a file by its first four bytes; 43 in them marks a BigTIFF."""
    endian: Endian = "little" if data[:2] == b"II" else "big"
    return _Tiff(data, endian, 43 in data[2:4])


def is_sound(block: bytes) -> bool:
    """Whether reading an EXIF block (from its byte order mark on) costs little."""
    tiff = _reader(block)
    if tiff.count(tiff.first) > ENTRIES:
        return False
    return sum(entry.size for entry in tiff.entries(tiff.first)) <= EXIF_BYTES


def survey_tiff(data: bytes) -> Survey:
    """Count pages and find whether the pixels of each are there; raises UnfitError."""
    tiff = _reader(data)
    at, seen, cut = tiff.first, set[int](), ""
    _judge(tiff, at)
    while at > 0 and at not in seen and len(seen) < FRAMES:
        seen.add(at)
        if not cut and tiff.count(at) <= ENTRIES and _last_byte(tiff, at) > len(data):
            cut = f"the pixels of page {len(seen)} are not all there"
        at = tiff.following(at)
        if at < 0 or at >= len(data):
            return Survey(data, max(1, len(seen)), cut or "the list of its pages breaks off")
    return Survey(data, max(1, len(seen)), cut)


def _judge(tiff: _Tiff, at: int) -> None:
    """Refuse a first page that would keep a decoder busy; raises UnfitError."""
    if tiff.count(at) > ENTRIES:
        raise UnfitError(f"it has more than {ENTRIES:,} tags")
    entries = list(tiff.entries(at))
    if sum(entry.size for entry in entries) > 2 * len(tiff.data) + EXIF_BYTES:
        raise UnfitError("its tags claim more bytes than the file has")
    if any(entry.count > STRIPS for entry in entries if entry.tag in _OFFSETS):
        raise UnfitError(f"it is cut into more than {STRIPS:,} pieces")


def _last_byte(tiff: _Tiff, at: int) -> int:
    """Where the strips or tiles of a page end, and the values of its public tags."""
    entries = {entry.tag: entry for entry in tiff.entries(at)}
    public = (entry.where + entry.size for entry in entries.values() if entry.tag < PRIVATE)
    last = max(public, default=0)
    for offsets, lengths in zip(_OFFSETS, _LENGTHS, strict=True):
        if offsets in entries and lengths in entries:
            starts, sizes = _values(tiff, entries[offsets]), _values(tiff, entries[lengths])
            ends = (start + size for start, size in zip(starts, sizes, strict=False))
            last = max(last, *ends, 0)
    return last


def _values(tiff: _Tiff, entry: _Entry) -> list[int]:
    """The numbers of an entry, of a few of them where there are very many."""
    size = _SIZES.get(entry.kind, 1)
    step = max(1, entry.count // 1_000)
    kept = [*range(0, entry.count, step), entry.count - 1] if entry.count else []
    return [tiff.number(entry.where + size * index, size) for index in kept]
