"""The command ``internvl-modal batch``: parsing and printing only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from internvl_modal.cli.batch_flags import Flags, options_of
from internvl_modal.cli.common import say
from internvl_modal.cli.taking import taking
from internvl_modal.errors import ConfigError

if TYPE_CHECKING:
    from internvl_modal.batch.iterate import Batch
    from internvl_modal.batch.progress import BatchProgress
    from internvl_modal.batch.sources.inputs import Sources

__all__ = ["batch"]


@taking(Flags)
def batch(flags: Flags) -> int:
    """Describe many pictures; run again, it goes on where it was.

    Exit code 1: some failed.
    """
    # The other arguments mean nothing then: no client is made and nothing is asked.
    if flags.status is not None:
        return show_status(flags.status)
    if not flags.source or flags.out is None:
        raise ConfigError("SOURCE and --out are needed", hint="or --status OUT")
    from internvl_modal.client.sync import Client

    options, source = options_of(flags), _source(flags.source)
    with Client(flags.backend, base_url=flags.base_url, model=flags.model) as client:
        done = _report(client.describe_many(source, flags.prompt, **options))
    words = f"{done.described:,} described, {done.failed:,} failed"
    if done.flagged:
        words += f", {done.flagged:,} flagged"
    if done.skipped:
        words += f", {done.skipped:,} there before"
    if done.imported:
        words += f", {done.imported:,} imported"
    if done.failed_before:
        words += f" ({done.failed_before:,} failed: --retry-errors asks again)"
    say(f"{words} -> {flags.out}")
    if done.projection is not None:
        say(str(done.projection))
    # Scripts see that something failed, also when this run has only skipped it.
    return 1 if done.failed or done.failed_before else 0


def _source(names: Sequence[str]) -> str | Sources:
    """One name, or several as a shell gives them."""
    from internvl_modal.batch.sources.inputs import STANDARD_INPUT, Sources

    if len(names) == 1 and names[0] != STANDARD_INPUT:
        return names[0]
    return Sources(tuple(names))


def _report(batch: Batch) -> BatchProgress:
    """Name the failures as they come; return the last numbers."""
    from internvl_modal.images.names import is_url, url_name

    for outcome in batch:
        # Failures are told at once: a mistake that spoils every picture is seen within seconds.
        if not outcome.ok:
            name = url_name(outcome.key) if is_url(outcome.key) else outcome.key
            words = " ".join(str(outcome.error).split()).removeprefix(f"{name}: ")
            say(f"{name}: {type(outcome.error).__name__}: {words}", err=True)
    return batch.summary


def show_status(path: Path) -> int:
    """Count what a file or folder of captions holds, by run; 1 if there are failures."""
    from internvl_modal.batch.sinks.exports import journal_of
    from internvl_modal.batch.sinks.lines import read_lines
    from internvl_modal.batch.sinks.text_files import JOURNAL

    if journal_of(path).is_file():
        path = journal_of(path)
    if (path / JOURNAL).is_file():
        path = path / JOURNAL
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder without texts of a batch",
            hint="give a .jsonl or a folder of texts; Parquet is read with pandas and its like",
        )
    if not path.is_file():
        raise ConfigError(f"{path} does not exist", hint="give the --out of a batch")
    runs: dict[str, dict[str, Any]] = {}
    for line in read_lines(path):
        # By run: prompt, options or model may have changed between two runs into one file.
        empty = dict[str, Any](model=None, described=0, completion_tokens=0, failed=Counter())
        found = runs.setdefault(str(line.run), empty)
        if line.failed:
            found["failed"][str(line.document["error"].get("type"))] += 1
        else:
            found["described"] += 1
            found["model"] = line.document.get("model")
            usage = line.document.get("usage") or {}
            found["completion_tokens"] += usage.get("completion_tokens", 0)
    for run, found in runs.items():
        typer.echo(json.dumps({"run": run, **found}))
    return 1 if any(found["failed"] for found in runs.values()) else 0
