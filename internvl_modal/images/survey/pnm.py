"""PBM, PGM and PPM: brought to what Pillow reads in C, and bounded where it reads in Python.

Pillow reads maximum values other than 255 sample by sample in Python. Bytes
can be scaled with ``translate``, so most files are rewritten to the usual form here.
"""

from __future__ import annotations

import re

from internvl_modal.images.survey.result import Survey, UnfitError

HEADER = 65_536
"""Longest header, comments included."""
SLOW_BYTES = 4_000_000
"""Longest file of a sort that Pillow reads in Python."""

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])"
_HEADER = re.compile(rb"P[14]" + rb"%b+(\d{1,10})" % _SPACE * 2 + rb"()\s")
_HEADER_MAXVAL = re.compile(rb"P[2356]" + rb"%b+(\d{1,10})" % _SPACE * 3 + rb"\s")


def survey_pnm(data: bytes) -> Survey:
    """Read the header; raises UnfitError for one without end and for long plain text."""
    head = (_HEADER if data[1:2] in b"14" else _HEADER_MAXVAL).match(data[:HEADER])
    if head is None:
        raise UnfitError(f"its header is damaged, or longer than {HEADER:,} bytes")
    # P1 and P4 are black and white, and have no largest value.
    kind, top = data[1] - ord("0"), int(head[3] or 1)
    width, height = int(head[1]), int(head[2])
    plain = kind <= 3
    if kind in (5, 6):
        return _binary(data, kind, head.end(), (width, height), top)
    if plain and len(data) > SLOW_BYTES:
        hint = "save it in its binary form, or as PNG"
        raise UnfitError(f"numbers as text, more than {SLOW_BYTES:,} bytes of them", hint)
    return (
        Survey(
            b"P%d %d %d " % (kind, width, height)
            + b"%d\n" % top * (kind in (2, 3))
            + data[head.end() :]
        )
        if plain
        else Survey(data)
    )


def _binary(data: bytes, kind: int, at: int, size: tuple[int, int], top: int) -> Survey:
    """Grey or colour with any largest value, as one with 255 where that loses nothing seen."""
    width, height = size
    samples = width * height * (3 if kind == 6 else 1)
    if not 0 < top < 65_536:
        raise UnfitError(f"its largest value is {top}")
    # The two forms that Pillow reads in C.
    if top == 255 or (top == 65_535 and kind == 5):
        return Survey(data, sixteen_bits=top == 65_535)
    body = data[at : at + samples * (1 if top < 256 else 2)]
    if top < 256:
        scaled = body.translate(bytes(min(255, round(v * 255 / top)) for v in range(256)))
    elif top == 65_535:
        # Big-endian: the first byte of each sample is its upper half.
        scaled = body[::2]
    elif len(data) <= SLOW_BYTES:
        return Survey(data)
    else:
        hint = "save it as PNG"
        raise UnfitError(f"more than {SLOW_BYTES:,} bytes of values up to {top}", hint)
    return Survey(b"P%d %d %d 255\n" % (kind, width, height) + scaled)
