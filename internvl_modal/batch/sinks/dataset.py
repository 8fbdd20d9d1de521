"""A data set of Hugging Face: on the disk, or pushed to the Hub, with a card that says how.

``datasets`` is imported where one is made: it takes a second and brings pandas. A row is what was
described; what failed is counted in the card and stands in the journal.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from internvl_modal.batch.schemas import fits
from internvl_modal.batch.sinks.exports import last_lines
from internvl_modal.batch.sinks.files import full, replacing
from internvl_modal.batch.sinks.lines import Line
from internvl_modal.batch.sinks.rows import answer_columns, flat, schema
from internvl_modal.errors import ConfigError, InternVLError, MissingExtraError

_LEFT_OUT = ("error_type", "error_message", "error_text", "content", "asked")


@dataclass(frozen=True)
class Card:
    """What the page of a data set says of how it was made."""

    prompt: object
    """As it was written; of a row's own each row has a column."""
    options: Mapping[str, object]

    def text(self, told: _Told, run: str, revision: str) -> str:
        """The page, in Markdown, with what the Hub reads at its top."""
        asked = self.prompt if isinstance(self.prompt, str) else json.dumps(self.prompt, indent=1)
        models = ", ".join(f"`{each}`" for each in sorted(told.models))
        facts = {
            "model": models or "others",
            "revision": f"`{revision}`" if revision else "not told by the server",
            "run": f"`{run}`",
            "flags": ", ".join(f"{name} {n:,}" for name, n in told.flags.most_common()) or "none",
            **{name: f"`{value}`" for name, value in self.options.items()},
        }
        table = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
        return (
            "---\ntask_categories:\n- image-to-text\ntags:\n- internvl-modal\n- synthetic\n---\n\n"
            f"# Captions by {models or 'others'}\n\n"
            f"{told.described:,} pictures, described with internvl-modal "
            f"{version('internvl-modal')}; {told.failed:,} more failed.\n\n"
            f"| | |\n|---|---|\n{table}\nThe prompt:\n\n```text\n{asked}\n```\n"
        )


@dataclass
class _Told:
    """What the lines of a run tell, for its card and its columns."""

    described: int = 0
    failed: int = 0
    with_files: int = 0
    models: set[str] = field(default_factory=set)
    flags: Counter[str] = field(default_factory=Counter)
    odd: set[str] = field(default_factory=set)
    """Columns in which a value does not fit the kind that its schema promises."""

    def add(self, line: Line, columns: Mapping[str, str]) -> None:
        """Count one."""
        document = line.document
        if line.failed:
            self.failed += 1
            return
        self.described += 1
        self.with_files += _is_there(document)
        self.models |= {str(document["model"])} if document.get("model") else set()
        self.flags.update(document.get("flags") or ())
        self.odd |= {name for name, kind in columns.items() if not fits(document.get(name), kind)}


def make_dataset(
    columns: Mapping[str, str], card: Card, journal: Path, out: Path, run: str, revision: str
) -> None:
    """A folder as ``load_from_disk`` reads it, in place of the one before."""
    made, page = _made(columns, card, journal, run, revision)
    new, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    with full(out):
        for each in (new, old):
            _clear(each)
        made.save_to_disk(str(new))
        (new / "README.md").write_text(page, encoding="utf-8")
        if out.exists():
            out.rename(old)
        new.rename(out)
        _clear(old)


def _clear(path: Path) -> None:
    """Remove what a killed process left there; a link would be written through."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def push_dataset(
    name: str,
    columns: Mapping[str, str],
    card: Card,
    journal: Path,
    out: Path,
    run: str,
    revision: str,
) -> None:
    """The data set ``name``, USER/NAME, on the Hub; ``out`` says afterwards that it is there."""
    made, page = _made(columns, card, journal, run, revision)
    from huggingface_hub import DatasetCard

    try:
        made.push_to_hub(name)
        there = DatasetCard.load(name)
        there.text = page.partition("---\n\n")[2]
        there.data.tags = ["internvl-modal", "synthetic"]
        there.data.task_categories = ["image-to-text"]
        there.push_to_hub(name)
    except Exception as error:
        raise InternVLError(
            f"{name} cannot be pushed: {' '.join(str(error).split())[:300]}",
            hint=f"log in with `hf auth login`; the captions are in {journal}, and the same call "
            "pushes them",
        ) from error
    with full(out), replacing(out) as file:
        file.write(f"https://huggingface.co/datasets/{name}\n".encode())


def _made(
    columns: Mapping[str, str], card: Card, journal: Path, run: str, revision: str
) -> tuple[Any, str]:
    """The data set, and its card; the lines are read twice and never held."""
    try:
        import pyarrow as arrow
        from datasets import Dataset, Features, Image, disable_progress_bars
    except ImportError as error:
        raise MissingExtraError(error.name or "datasets", "datasets") from error
    told = _Told()
    for line in last_lines(journal, run):
        told.add(line, columns)
    if not told.described:
        raise ConfigError("no picture was described: there is no data set to make")
    kinds = {name: "string" if name in told.odd else kind for name, kind in columns.items()}
    plain = Features.from_arrow_schema(schema(arrow, kinds))
    features = Features({name: plain[name] for name in plain if name not in _LEFT_OUT})
    if told.with_files == told.described:
        features = Features({"image": Image(), **features})

    def given() -> Iterator[dict[str, Any]]:
        for line in last_lines(journal, run):
            if not line.failed:
                row = flat(line.document)
                answer_columns([row], kinds)
                row["image"] = row.get("source")
                yield {name: row.get(name) for name in features}

    disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        made = Dataset.from_generator(
            given, features=features, cache_dir=cache, keep_in_memory=True
        )
    return made, card.text(told, run, revision)


def _is_there(row: Mapping[str, Any]) -> bool:
    return bool(row.get("source")) and Path(row["source"]).is_file()
