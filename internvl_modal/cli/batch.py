"""The command ``internvl-modal batch``: parsing and printing only."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from internvl_modal.cli.common import say
from internvl_modal.errors import ConfigError

if TYPE_CHECKING:
    from internvl_modal.batch.iterate import Batch
    from internvl_modal.batch.progress import BatchProgress

__all__ = ["batch"]

# Help texts stand apart, so that a signature fits on a line and can be read.
_SOURCE = (
    "A folder, a glob, a .txt, .jsonl, .csv or .parquet, a tar, a PDF, or an address of these."
)
_BACKEND = "local, endpoint, lmdeploy, modal or a URL."
_DETAIL = "low, medium, high, auto or a tile count 1-40."
_STATUS = "Only say what this .jsonl, or folder of texts, holds."
_RETRY = "Try again what failed before."

Text: TypeAlias = str | None


def batch(
    source: Annotated[str | None, typer.Argument(help=_SOURCE, show_default=False)] = None,
    out: Annotated[Text, typer.Option(help="A .jsonl, a .parquet, or a folder/ of texts.")] = None,
    status: Annotated[Path | None, typer.Option(help=_STATUS)] = None,
    prompt: Annotated[Text, typer.Option(help="What to ask.")] = None,
    concurrency: Annotated[str, typer.Option(help="Requests at once: a count or auto.")] = "auto",
    max_concurrency: Annotated[int | None, typer.Option(help="Most that auto may try.")] = None,
    resume: Annotated[bool, typer.Option(help="Skip what is there, or start anew.")] = True,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help=_RETRY)] = False,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Ask about equal bytes once.")] = False,
    column: Annotated[Text, typer.Option(help="Column that holds the pictures.")] = None,
    key: Annotated[Text, typer.Option(help="Column that holds the keys.")] = None,
    delimiter: Annotated[Text, typer.Option(help="What divides a CSV.")] = None,
    pages: Annotated[Text, typer.Option(help="Pages of a PDF: 1-20.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    backend: Annotated[Text, typer.Option(help=_BACKEND)] = None,
    base_url: Annotated[Text, typer.Option(help="URL of an OpenAI-compatible server.")] = None,
    model: Annotated[Text, typer.Option(help="Model there.")] = None,
    detail: Annotated[Text, typer.Option(help=_DETAIL)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to write.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 (greedy) to 2.")] = None,
) -> int:
    """Describe many pictures; run it again to go on where it stopped. Exit code 1: some failed."""
    # The other arguments mean nothing then: no client is made and nothing is asked.
    if status is not None:
        return show_status(status)
    if source is None or out is None:
        raise ConfigError("SOURCE and --out are needed", hint="or --status OUT")
    from internvl_modal.client.sync import Client

    given: dict[str, Any] = {
        # typer knows no "a number or a word": what is no number is checked as a word by ``Job``.
        "concurrency": int(concurrency) if concurrency.isdecimal() else concurrency,
        "max_concurrency": max_concurrency,
        "column": column,
        "key": key,
        "delimiter": delimiter,
        "pages": pages,
        "detail": int(detail) if detail is not None and detail.isdecimal() else detail,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    # None leaves an option out, so that defaults stand in one place.
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options |= {"resume": resume, "retry_errors": retry_errors, "dedupe": dedupe}
    with Client(backend, base_url=base_url, model=model) as client:
        done = _report(client.describe_many(source, prompt, out=out, progress=not quiet, **options))
    words = f"{done.described:,} described, {done.failed:,} failed"
    if done.skipped:
        words += f", {done.skipped:,} there before"
    if done.failed_before:
        words += f" ({done.failed_before:,} failed: --retry-errors asks again)"
    say(f"{words} -> {out}")
    # Scripts see that something failed, also when this run has only skipped it.
    return 1 if done.failed or done.failed_before else 0


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
    from internvl_modal.batch.sinks.lines import read_lines
    from internvl_modal.batch.sinks.text_files import JOURNAL

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
