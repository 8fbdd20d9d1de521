"""JPEG: markers are walked once (ITU T.81, annex B).

Only markers are looked at, and between scans the coded data is skipped with a regular expression,
far faster than it could be decoded. In coded data FF is followed by 00 or a restart marker, so the
end marker cannot stand there by chance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from internvl_modal.images.survey.result import BLOCKS, Survey, UnfitError
from internvl_modal.images.survey.tiff import is_sound

SCANS = 100
"""Most scans; encoders write up to about twenty."""
WORK = 2_000_000_000
"""Most pixels times scans: each scan of a progressive file visits every pixel."""
JUNK = 4_096
"""Most bytes between two segments: a decoder reads them one by one."""
TAIL = 65_536
"""Bytes after the end that are left where they are."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_EOI, _SOI, _SOS, _APP1, _APP2 = 0xD9, 0xD8, 0xDA, 0xE1, 0xE2
_NO_FRAME = frozenset((0xC4, 0xC8, 0xCC))
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))


@dataclass
class _Walk:
    """What the markers so far have told."""

    scans: int = 0
    segments: int = 0
    pixels: int = 0
    coefficients: int = 0
    """Bytes that a decoder of several scans keeps: two for each sample."""
    components: int = 0
    several: bool = False
    phone: bool = False
    unknown: bool = False
    unfit: tuple[int, int] | None = None
    """Where EXIF data lies that costs more to read than the picture."""


def survey_jpeg(data: bytes) -> Survey:
    """Walk to the end marker; raises UnfitError for what would keep a decoder busy."""
    walk, at, end = _Walk(), 2, None
    while found := _MARKER.search(data, at):
        start, code = found.start(), data[found.start() + 1]
        if not walk.scans and start - at > JUNK:
            raise UnfitError("there are more than 4,096 bytes of nothing between its parts")
        if code == _EOI:
            end = found.end()
            break
        if code in (_SOI, 0x01):
            at, walk.unknown = found.end(), walk.unknown or bool(walk.scans)
            continue
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        _note(walk, code, data, start, at)
    return _result(walk, data, end)


def _note(walk: _Walk, code: int, data: bytes, start: int, end: int) -> None:
    """Take one segment into account; raises UnfitError for the one that is too many."""
    walk.segments += 1
    if walk.segments > BLOCKS:
        raise UnfitError(f"it has more than {BLOCKS:,} segments")
    if code == _SOS:
        walk.scans += 1
        # A scan of fewer components than the frame has: the decoder must keep all coefficients.
        walk.several |= data[start + 4 : start + 5] < bytes([walk.components])
        if walk.scans > SCANS:
            raise UnfitError(f"it has more than {SCANS} scans")
        if walk.scans * walk.pixels > WORK:
            raise UnfitError(f"{walk.scans} scans of {walk.pixels / 1e6:.0f} megapixels")
    elif 0xC0 <= code <= 0xCF and code not in _NO_FRAME:
        _frame(walk, data[start + 4 : end])
        walk.several |= code in _PROGRESSIVE
    elif code == _APP1 and data.startswith(b"Exif\0\0", start + 4):
        if not is_sound(data[start + 10 : end]):
            walk.unfit = (start, end)
    # Multi-Picture Format: a phone's file with previews or a depth map behind the picture.
    elif code == _APP2 and data.startswith(b"MPF\0", start + 4):
        walk.phone = True
    elif code < 0xC0:
        walk.unknown = True


def _frame(walk: _Walk, body: bytes) -> None:
    """Size, components and sampling from a frame header (T.81, B.2.2)."""
    if len(body) < 6:
        return
    walk.pixels = int.from_bytes(body[1:3], "big") * int.from_bytes(body[3:5], "big")
    walk.components = body[5]
    # Horizontal and vertical factor of each component, four bits each.
    sampling = [(each >> 4) * (each & 15) for each in body[7::3][: body[5]]]
    if most := max(sampling, default=0):
        walk.coefficients = 2 * walk.pixels * sum(sampling) // most


def _result(walk: _Walk, data: bytes, end: int | None) -> Survey:
    """The survey; EXIF data that costs more than the picture is cut out of the file."""
    tail = data[end:] if end is not None else b""
    follows = tail.find(b"\xff\xd8\xff", 0, 4 * TAIL) >= 0
    if walk.unfit is not None:
        start, stop = walk.unfit
        data = data[:start] + data[stop:]
        end = None if end is None else end - (stop - start)
    return Survey(
        data,
        cut="" if end is not None and walk.scans else "its end marker is missing",
        end=end if len(tail) > TAIL else None,
        # Something foreign before or behind the picture: only a decoder can say whether it is
        # whole.
        odd=walk.unknown or not (follows or not tail.strip(b"\0\xff \r\n")),
        previews=walk.phone and follows,
        extra_bytes=walk.coefficients if walk.several else 0,
    )
