"""GIF, WebP, BMP and the box formats (AVIF, HEIF, JPEG 2000): where they end, how many frames."""

from __future__ import annotations

from internvl_modal.images.survey.result import BLOCKS, FRAMES, Survey, UnfitError

RLE_BYTES = 4_000_000
"""Longest run-length data of a BMP: Pillow unpacks it in Python."""
_HOPS = 1_000_000
"""Sub-blocks of a GIF, 255 bytes each: 250 MB of them."""
_MISSING = "its end is missing"


def survey_gif(data: bytes) -> Survey:
    """Walk the blocks up to the trailer; what comes after 1,000 frames is not looked at.

    LZW data is skipped by the lengths of its blocks; nothing is unpacked.
    """
    # The flag of a global palette, which has 2 << n entries of three bytes.
    palette = data[10:11] >= b"\x80"
    at = 13 + (3 << (data[10] & 7) + 1 if palette else 0) if len(data) > 10 else 13
    frames = blocks = 0
    hops = _HOPS
    while at < len(data) and data[at : at + 1] in (b"!", b","):
        # An extension ("!"); its label is passed over with it.
        if data[at] == 0x21:
            blocks, at = blocks + 1, at + 2
        else:
            frames, flags = frames + 1, data[at + 9] if at + 9 < len(data) else 0
            if not (palette or flags & 0x80):
                raise UnfitError("its colours are numbers of a palette, and there is none")
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        if not frames and blocks > BLOCKS:
            raise UnfitError(f"it has more than {BLOCKS:,} blocks before its first frame")
        while at < len(data) and data[at] and hops:
            at, hops = at + 1 + data[at], hops - 1
        at += 1
        if frames >= FRAMES or blocks > BLOCKS or not hops:
            # Not walked to the end: the trailer's byte is all that is looked for.
            whole = data.rstrip(b"\0").endswith(b";")
            return Survey(data, max(1, frames), "" if whole else _MISSING)
    return Survey(data, max(1, frames), "" if data[at : at + 1] == b";" else _MISSING)


def survey_webp(data: bytes) -> Survey:
    """The length in the header, and the frames of an animation."""
    size = int.from_bytes(data[4:8], "little")
    at, frames, chunks = 12, 0, 0
    while at + 8 <= len(data) and frames < FRAMES and chunks < BLOCKS:
        frames, chunks = frames + (data[at : at + 4] == b"ANMF"), chunks + 1
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    if chunks >= BLOCKS:
        raise UnfitError(f"it has more than {BLOCKS:,} chunks")
    return Survey(data, max(1, frames), _MISSING if 8 + size > len(data) else "")


def survey_bmp(data: bytes) -> Survey:
    """Where the pixels end by the header's own numbers.

    Rows are padded to four bytes; a negative height means top-down.
    """
    header = int.from_bytes(data[14:18], "little")
    if header == 12:
        width, height = (int.from_bytes(data[at : at + 2], "little") for at in (18, 20))
        bits, packed, length = int.from_bytes(data[24:26], "little"), 0, 0
    else:
        width, height = (
            abs(int.from_bytes(data[at : at + 4], "little", signed=True)) for at in (18, 22)
        )
        bits = int.from_bytes(data[28:30], "little")
        packed, length = (int.from_bytes(data[at : at + 4], "little") for at in (30, 34))
    start = int.from_bytes(data[10:14], "little")
    if packed in (1, 2):
        if len(data) > RLE_BYTES:
            hint = "save it as PNG"
            raise UnfitError(f"run-length data of more than {RLE_BYTES:,} bytes", hint)
    else:
        length = (width * bits + 31) // 32 * 4 * height
    return Survey(data, cut=_MISSING if start + length > len(data) else "")


def survey_boxes(data: bytes) -> Survey:
    """Whether the boxes that a file is made of are all there (ISO/IEC 14496-12)."""
    at = boxes = 0
    while at + 8 <= len(data) and boxes < BLOCKS:
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length == 0:  # up to the end
            return Survey(data)
        at, boxes = at + max(8, length), boxes + 1
    return Survey(data, cut=_MISSING if at > len(data) else "")


def survey_jpeg2000(data: bytes) -> Survey:
    """The boxes, or the end marker of a bare codestream."""
    levels = _levels(data, data.find(b"\xff\x4f\xff\x51"))
    if data.startswith(b"\xff\x4f"):
        whole = data.rstrip(b"\0").endswith(b"\xff\xd9")
        return Survey(data, cut="" if whole else _MISSING, halvings=levels)
    return Survey(data, cut=survey_boxes(data).cut, halvings=levels)


def _levels(data: bytes, start: int) -> int:
    """Decomposition levels, from the segment COD of a codestream (ITU T.800, A.6.1)."""
    at, segments = start + 2, 0
    while start >= 0 and data[at : at + 1] == b"\xff" and segments < BLOCKS:
        if data[at + 1 : at + 2] == b"\x52":
            return min(32, int.from_bytes(data[at + 9 : at + 10], "big"))
        at, segments = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"), segments + 1
    return 0
