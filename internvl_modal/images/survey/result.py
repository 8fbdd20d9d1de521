"""The outcome of a survey."""

from __future__ import annotations

from dataclasses import dataclass, field

FRAMES = 1_000
"""Frames and pages are counted up to here: nobody needs to know of more."""
BLOCKS = 10_000
"""Most markers, chunks or blocks of a file that are not its pixels."""


class UnfitError(Exception):
    """A file that no decoder should be given; ``hint`` says what to do instead.

    Becomes ImageError with the picture's name in ``load``; a survey knows no names.
    """

    def __init__(self, message: str, hint: str = "save it again with another program") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Survey:
    """What is known of a file before it is decoded.

    The defaults say "whole, one frame, nothing special": a format states only what it knows.
    """

    data: bytes = field(repr=False)
    """What a decoder is given: the file, without the text that costs more than the picture."""
    frames: int = 1
    cut: str = ""
    """What shows that the file's end is missing; empty where nothing does."""
    end: int | None = None
    """Where the picture ends in ``data``, where more may follow."""
    odd: bool = False
    """Whether only a decoder can say that the picture is whole."""
    previews: bool = False
    """Whether other pictures follow the first, as in a phone's MPO."""
    profile: bytes | None = field(default=None, repr=False)
    """A colour profile that was taken out of ``data`` for its size."""
    halvings: int = 0
    """How often the decoder can halve the picture."""
    sixteen_bits: bool = False
    """Whether its grey values are numbers of 16 bits, however few of these are used."""
    extra_bytes: int = 0
    """What the decoder holds besides the pixels."""
