"""Models side by side: which is good enough for these pictures, and what does it cost?

Each model describes the same pictures as a batch of its own, one model after the other, so that
none takes time from another. With a folder as ``out=`` each batch has its file there, and the same
call goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

from typing_extensions import Unpack

from internvl_modal._utils.short_errors import short_errors
from internvl_modal.batch.options import BatchOptions
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sinks.files import check_regular, full, replacing
from internvl_modal.batch.sinks.lines import read_lines, record
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.captions.gallery import Caption, Row, Table, grid, page
from internvl_modal.captions.similarity import token_f1, words_of
from internvl_modal.captions.thumbnails import thumbnail
from internvl_modal.client.sync import Client
from internvl_modal.errors import ConfigError
from internvl_modal.reports.gallery import THUMBNAILS, Places, write_page

__all__ = ["Comparison", "Measured", "compare"]

_BOOKS = "comparison.json"
"""Beside the captions: how long each model took and what it cost, over all runs."""


@dataclass(frozen=True)
class Measured:
    """One model's figures; None where there is nothing to measure."""

    described: int
    failed: int
    flags: Mapping[str, int]
    words: float | None
    """Median of the lengths of its texts, in words; of Chinese and Japanese in characters."""
    seconds: float | None
    """For a picture, with as many at once as the batch had: its time, divided by its pictures."""
    usd_per_1000: float | None
    f1: float | None
    """Mean token F1 with the references, of the nearest one where a picture has several."""

    @property
    def flagged(self) -> int:
        """Flags, each counted; a text may have several."""
        return sum(self.flags.values())


@dataclass(frozen=True)
class Comparison:
    """What each model said of each picture, and figures; ``str()`` is a table.

    >>> found = compare("photos", {"2b": small, "8b": large}, out="comparison/")  # doctest: +SKIP
    >>> print(found)  # doctest: +SKIP
    >>> found.write("comparison.html")  # doctest: +SKIP
    """

    models: Mapping[str, Measured]
    agreement: Mapping[tuple[str, str], float | None]
    """Mean token F1 of each two models' texts about the same pictures."""
    texts: Mapping[str, Mapping[str, str]] = field(repr=False)
    """By key and model; a failure has none."""
    _rows: Sequence[Mapping[str, Any]] = field(repr=False)

    def __str__(self) -> str:
        lines: list[str] = []
        for table in self._tables():
            widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
            lines += [table.title]
            for row in table.rows:
                first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
                lines.append("  ".join([row[0].ljust(len(first)), *rest]).rstrip())
        return "\n".join(lines)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as a page like the gallery's; returns its path."""
        out = Path(path)
        places = Places(out.parent, [Path()])
        rows = [_row(each, each["thumbnail"] or places.source(each["key"])) for each in self._rows]
        return write_page(out, page("Comparison", rows, tables=self._tables()))

    def _repr_html_(self) -> str:
        shown = grid([_row(each, each["thumbnail"]) for each in self._rows[:6]], "")
        return "".join(table.html for table in self._tables()) + shown

    def _tables(self) -> list[Table]:
        names = list(self.models)
        figures = [["", *names]]
        for title, cell in _FIGURES:
            cells = [cell(each) for each in self.models.values()]
            if any(cells):
                figures.append([title, *(each or "-" for each in cells)])
        flags = sorted({flag for each in self.models.values() for flag in each.flags})
        for flag in flags:
            counts = [each.flags.get(flag, 0) for each in self.models.values()]
            figures.append([f"flagged {flag}", *(f"{count:,}" for count in counts)])
        found = [Table("Side by side", figures)]
        if self.agreement:
            pairs = [[f"{a} and {b}", _share(f1)] for (a, b), f1 in self.agreement.items()]
            found.append(Table("Agreement", [["", "token F1"], *pairs]))
        return found


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


_FIGURES: tuple[tuple[str, Callable[[Measured], str]], ...] = (
    ("described", lambda each: f"{each.described:,}"),
    ("failed", lambda each: f"{each.failed:,}"),
    ("words, median", lambda each: "" if each.words is None else f"{each.words:.0f}"),
    ("seconds a picture", lambda each: "" if each.seconds is None else f"{each.seconds:.3f}"),
    ("USD for 1,000", lambda each: "" if each.usd_per_1000 is None else f"{each.usd_per_1000:.2f}"),
    ("token F1 with references", lambda each: "" if each.f1 is None else f"{each.f1:.2f}"),
)


@short_errors
def compare(
    images: Images,
    clients: Mapping[str, Client],
    prompt: str | None = None,
    *,
    references: Mapping[str, str | Sequence[str]] | str | os.PathLike[str] | None = None,
    **options: Unpack[BatchOptions],
) -> Comparison:
    """Have each client describe all pictures, and compare what they say.

    ``images`` and ``options`` as in ``describe_many``; an iterator can be read only once, so give
    a list. ``references``: texts by key, several for a picture in a list, or a ``.jsonl`` of a
    batch. ``out=``: a folder for each model's captions, ``comparison.html`` and what is needed to
    go on. Raises ConfigError, and what ends a batch.
    """
    if not clients:
        raise ConfigError("there is no client to compare", hint='give {"2b": client, ...}')
    if isinstance(images, Iterator) or hasattr(images, "__anext__"):
        raise ConfigError("these images can be read only once", hint="give a list of them")
    for name, client in clients.items():
        if not isinstance(client, Client):
            raise ConfigError(f"{name} is a {type(client).__name__}", hint="give each a Client")
    if len({_file_name(name).lower() for name in clients}) < len(clients):
        # With out= the second would be told the first one's captions.
        raise ConfigError("names are alike but for signs and case", hint="name them otherwise")
    known = _references(references)
    folder = _folder(options.pop("out", None))
    runs = [_run(name, client, images, prompt, folder, options) for name, client in clients.items()]
    found = _compared(runs, known)
    if folder is not None:
        found.write(folder / "comparison.html")
    return found


def _folder(out: object) -> Path | None:
    """The folder that ``out=`` means, made; raises ConfigError for a function."""
    if out is None:
        return None
    if not isinstance(out, str | os.PathLike):
        raise ConfigError("out= is no folder", hint="give a path")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class _Run:
    """What one model said, by key, as the lines of a batch; its time and its cost."""

    name: str
    lines: Mapping[str, Mapping[str, Any]]
    thumbnails: Mapping[str, str]
    seconds: float | None
    usd: float | None


def _run(
    name: str,
    client: Client,
    images: Images,
    prompt: str | None,
    folder: Path | None,
    options: BatchOptions,
) -> _Run:
    """Describe all pictures with one client."""
    path = None if folder is None else folder / _file_name(name)
    for each in [] if path is None else [path, path.with_name(_BOOKS)]:
        check_regular(each, linked=False)
    before, lines, thumbnails = _lines(path), dict[str, Mapping[str, Any]](), dict[str, str]()
    batch = client.describe_many(images, prompt, **{**options, "out": path})  # type: ignore[arg-type]
    for outcome in batch:
        lines[outcome.key] = json.loads(json.dumps(record(outcome, "")))
        if folder is None or not _is_path(outcome):
            thumbnails[outcome.key] = (
                thumbnail(outcome.source) if len(thumbnails) < THUMBNAILS else ""
            )
    ended = batch.summary
    rate = ended.pictures_per_second
    seconds = len(lines) / rate if rate else 0.0
    books = _booked(folder, name, {"seconds": seconds, "pictures": len(lines), "usd": ended.usd})
    asked = {key: line for key, line in _lines(path).items() if key in lines or key in before}
    done = books["pictures"] or None
    return _Run(
        name,
        {**asked, **lines},
        thumbnails,
        books["seconds"] / done if done else None,
        books["usd"] * 1000 / done if done and books["usd"] is not None else None,
    )


def _is_path(outcome: Outcome) -> bool:
    return isinstance(outcome.source, str | os.PathLike)


def _file_name(name: str) -> str:
    """A file for a model's captions, whatever it is called."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-")
    return f"{plain or 'model'}.jsonl"


def _lines(path: Path | None) -> dict[str, Mapping[str, Any]]:
    """The last run's line for each key."""
    if path is None or not path.is_file():
        return {}
    found = list(read_lines(path))
    return {line.key: line.document for line in found if line.run == found[-1].run}


def _booked(folder: Path | None, name: str, spent: Mapping[str, Any]) -> dict[str, Any]:
    """What a model took in all runs, this one added."""
    path, books = None if folder is None else folder / _BOOKS, dict[str, dict[str, Any]]()
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            books = json.loads(path.read_text())
    old = books.get(name, {"seconds": 0.0, "pictures": 0, "usd": None})
    if spent["pictures"]:  # looking through what is settled is no time of the model's
        usd = [each for each in (old["usd"], spent["usd"]) if each is not None]
        old = {
            "seconds": old["seconds"] + spent["seconds"],
            "pictures": old["pictures"] + spent["pictures"],
            "usd": sum(usd) if usd else None,
        }
    if path is not None:
        with full(path), replacing(path) as file:
            file.write(json.dumps({**books, name: old}).encode())
    return old


def _references(given: object) -> dict[str, list[str]]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(k): [v] if isinstance(v, str) else list(v) for k, v in given.items()}
    lines = _lines(Path(cast(str, given)))
    if not lines:
        raise ConfigError(f"{given} holds no references", hint="give texts by key, or a .jsonl")
    return {key: [str(line["text"])] for key, line in lines.items() if "text" in line}


def _compared(runs: Sequence[_Run], references: Mapping[str, Sequence[str]]) -> Comparison:
    keys = list(dict.fromkeys(key for run in runs for key in run.lines))
    texts = {
        key: {r.name: r.lines[key]["text"] for r in runs if "text" in r.lines.get(key, {})}
        for key in keys
    }
    agreement = {
        (a.name, b.name): _mean(
            token_f1(said[a.name], said[b.name])
            for said in texts.values()
            if a.name in said and b.name in said
        )
        for a, b in combinations(runs, 2)
    }
    rows = [
        {
            "key": key,
            "thumbnail": next(filter(None, (run.thumbnails.get(key) for run in runs)), ""),
            "lines": {run.name: run.lines.get(key, {}) for run in runs},
            "references": list(references.get(key, ())),
        }
        for key in keys
    ]
    return Comparison(
        {run.name: _measured(run, references) for run in runs}, agreement, texts, rows
    )


def _measured(run: _Run, references: Mapping[str, Sequence[str]]) -> Measured:
    described = {key: line for key, line in run.lines.items() if "error" not in line}
    flags = Counter(flag for line in run.lines.values() for flag in line.get("flags") or ())
    lengths = [len(words_of(line["text"])) for line in described.values()]
    f1 = _mean(
        max(token_f1(described[key]["text"], text) for text in known)
        for key, known in references.items()
        if key in described and known
    )
    words = median(lengths) if lengths else None
    failed = len(run.lines) - len(described)
    return Measured(len(described), failed, dict(flags), words, run.seconds, run.usd, f1)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return mean(found) if found else None


def _row(row: Mapping[str, Any], source: str) -> Row:
    answers = [_caption(name, line) for name, line in row["lines"].items()]
    answers += [Caption(text, name="reference") for text in row["references"]]
    return Row(row["key"], answers, source)


def _caption(name: str, line: Mapping[str, Any]) -> Caption:
    error = line.get("error") or {}
    told = f"{error.get('type')}: {error.get('message')}" if error else ""
    facts = {} if "seconds" not in line else {"seconds": str(line["seconds"])}
    text = line.get("text") or error.get("text") or ""
    return Caption(text, line.get("flags") or (), told, name, facts)
