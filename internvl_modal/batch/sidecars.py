"""A text file for each picture, and a journal of them all."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from internvl_modal.batch.lines import read_lines
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sinks import JsonLines, Keys, full

JOURNAL = ".internvl-modal.jsonl"


class Sidecars(JsonLines):
    """``photos/cat.jpg`` becomes ``photos/cat.txt`` in the folder, or beside it if it is there.

    The journal holds the lines that a ``.jsonl`` would, errors too, and is what resuming reads.
    """

    def __init__(self, folder: Path, *, resume: bool, retry_errors: bool) -> None:
        super().__init__(folder / JOURNAL, resume=resume, retry_errors=retry_errors)
        self._folder = folder
        self._names = Keys()

    def open(self, run: str) -> None:
        """Read the journal, and which names it has given away."""
        super().open(run)
        for line in read_lines(self._path):
            if line.run == run and not line.failed:
                self._path_for(line.key)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """The text first, whole or not at all, then the line that says it is there."""
        for outcome in outcomes:
            if outcome.text is None:
                continue
            path = self._path_for(outcome.key)
            with full(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = path.with_name(f".{path.name}.new")
                beside.write_text(outcome.text + "\n", encoding="utf-8", errors="replace")
                beside.replace(path)
        super().write(outcomes)

    def _path_for(self, key: str) -> Path:
        """Where a key's text goes; the second of two that differ by suffix keeps it in its name."""
        inside = os.path.relpath(key, self._folder)
        if inside.startswith(".."):
            inside = re.sub(r"[^\w./-]+", "_", key.replace("\\", "/"))
        parts = [part for part in Path(inside).parts if part not in ("/", "..", ".")]
        path = self._folder.joinpath(*parts)
        short = path.with_suffix(".txt")
        return path.with_name(f"{path.name}.txt") if self._names.has(str(short)) else short
