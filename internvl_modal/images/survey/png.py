"""PNG: chunks, their checksums, and the text between them (PNG 3rd edition, clause 5)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from internvl_modal.images.survey.result import BLOCKS, FRAMES, Survey, UnfitError

START = 8
PIECES = 200_000
"""Most chunks of pixels.

200 megapixels of RGB in chunks of 8 KB, not packed at all, are 73,000.
"""
TEXT = 100_000
"""Most bytes of text, inflated; what is more is taken out: decoders refuse long ones.

Pillow raises an error for text beyond a megabyte, and the whole picture would be lost.
"""
PROFILE = 16_000_000
"""Most bytes of a colour profile once it is inflated."""
TAIL = 65_536
"""Bytes after the end that are left where they are."""

_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_PALETTE = 3


@dataclass
class _Walk:
    end: int | None = None
    frames: int = 1
    left_out: list[tuple[int, int]] = field(default_factory=list)
    profile: bytes | None = None
    text: int = 0
    others: int = 0
    pieces: int = 0


def survey_png(data: bytes) -> Survey:
    """Walk the chunks to the end; raises UnfitError for what a decoder should not be given."""
    walk, palette = _Walk(), False
    for kind, start, end in chunks(data):
        _count(walk, kind)
        if kind == b"IEND":
            walk.end = end
        elif kind == b"PLTE":
            palette = end - start >= 12 + 3  # one colour, or all is black
        # Byte 25 is the colour type in IHDR. Decoders differ in what they show without a palette.
        elif kind == b"IDAT" and data[25] == _PALETTE and not palette:
            raise UnfitError("its colours are numbers of a palette, and there is none")
        elif kind == b"acTL":
            # An animation's own count: its frames need not be walked.
            walk.frames = min(int.from_bytes(data[start + 8 : start + 12], "big"), FRAMES)
        elif kind in _TEXTS and _is_too_much(walk, kind, data[start + 8 : end - 4]):
            walk.left_out.append((start, end))
        elif kind == b"iCCP" and _is_large(data[start + 8 : end - 4]):
            walk.left_out.append((start, end))
            profile = data[start + 8 : end - 4].partition(b"\0")[2][1:]
            walk.profile = _inflated(profile, PROFILE)
    return _result(walk, data)


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every chunk that is all there, up to the last."""
    at = START
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if end > len(data):
            return
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end


def wrong_checksum(data: bytes) -> str:
    """The type of the first chunk whose checksum is wrong, empty where none is."""
    view = memoryview(data)
    for kind, start, end in chunks(data):
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return kind.decode("latin-1")
    return ""


def _count(walk: _Walk, kind: bytes) -> None:
    """Bound the number of chunks: each costs a decoder a step in Python."""
    if kind in (b"IDAT", b"fdAT"):
        walk.pieces += 1
    else:
        walk.others += 1
    if walk.others > BLOCKS or walk.pieces > PIECES:
        raise UnfitError(f"it has more than {BLOCKS:,} chunks")


def _result(walk: _Walk, data: bytes) -> Survey:
    """The survey, with the chunks that were left out cut from the data."""
    cut = "" if walk.end is not None else "its last chunk is missing"
    end = walk.end
    if walk.left_out:
        kept, at = [], 0
        for start, stop in walk.left_out:
            kept.append(data[at:start])
            at = stop
            end = None if end is None else end - (stop - start)
        data = b"".join([*kept, data[at:]])
    if end is not None and len(data) - end <= TAIL:
        end = None
    return Survey(data, max(1, walk.frames), cut, end=end, profile=walk.profile)


def _is_too_much(walk: _Walk, kind: bytes, chunk: bytes) -> bool:
    """Whether a text does not fit beside those before it."""
    if walk.text > TEXT or len(chunk) > TEXT:
        return True
    rest = chunk.partition(b"\0")[2]
    if kind == b"zTXt":
        walk.text += len(_inflated(rest[1:], TEXT) or b"")
    elif kind == b"iTXt" and rest[:1] == b"\1":
        walk.text += len(_inflated(rest[2:].split(b"\0", 2)[-1], TEXT) or b"")
    walk.text += len(chunk)
    return walk.text > TEXT


def _is_large(chunk: bytes) -> bool:
    """Whether Pillow refuses to inflate a profile."""
    inflated = _inflated(chunk.partition(b"\0")[2][1:], PROFILE)
    return inflated is not None and len(inflated) > 1_000_000


def _inflated(packed: bytes, most: int) -> bytes | None:
    """Up to ``most`` bytes; None where they are broken."""
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return None
