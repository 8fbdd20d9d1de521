"""A batch as notebooks show it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.progress import BatchProgress
from internvl_modal.captions.gallery import Caption, Row, grid
from internvl_modal.captions.thumbnails import thumbnail

__all__ = ["SHOWN", "batch_html"]

SHOWN = 12
"""Outcomes that a batch keeps to show."""
HELD = 8_000_000
"""Bytes of a picture in memory that is kept with one."""


def kept(outcome: Outcome) -> Outcome:
    """What is kept of an outcome: without its picture, where that is a large one in memory."""
    source: Any = outcome.source
    first = source[0] if isinstance(source, list | tuple) and source else source
    if isinstance(first, str | os.PathLike):
        return outcome
    if isinstance(first, bytes):
        size = len(first)
    elif hasattr(first, "getbands"):  # Pillow's
        size = first.width * first.height * len(first.getbands())
    else:
        size = getattr(first, "nbytes", HELD + 1)
    return replace(outcome, source=first if size <= HELD else b"")


def batch_html(outcomes: Iterable[Outcome], progress: BatchProgress) -> str:
    """A grid of the last outcomes, and the numbers below it."""
    return grid((_row(outcome) for outcome in outcomes), str(progress))


def _row(outcome: Outcome) -> Row:
    source = thumbnail(outcome.source)
    if outcome.error is not None:
        told = f"{type(outcome.error).__name__}: {outcome.error}"
        return Row(outcome.key, [Caption(error=told, flags=outcome.flags)], source)
    if outcome.answers:
        answers = [Caption(each.text, name=name) for name, each in outcome.answers.items()]
        return Row(outcome.key, answers, source)
    return Row(outcome.key, [Caption(outcome.text or "", outcome.flags)], source)
