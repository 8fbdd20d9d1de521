"""Which sink ``out=`` means."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from internvl_modal.batch.options import Job
from internvl_modal.batch.sinks.base import Callback, Sink
from internvl_modal.batch.sinks.dataset import Card, make_dataset, push_dataset
from internvl_modal.batch.sinks.exports import Exported, make_csv, make_metadata
from internvl_modal.batch.sinks.files import check_name
from internvl_modal.batch.sinks.jsonl import JsonLines
from internvl_modal.batch.sinks.parquet import Parquet
from internvl_modal.batch.sinks.pictures import reader
from internvl_modal.batch.sinks.remote import RemoteParts
from internvl_modal.batch.sinks.shards import PATTERN, Shards
from internvl_modal.batch.sinks.text_files import Sidecars
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.batch.sources.places import has_scheme, is_remote
from internvl_modal.errors import ConfigError
from internvl_modal.images.names import is_url, url_name

_DATASET = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?<!\.jsonl)(?<!\.parquet)/?")
"""A data set of its own, and no file in one."""
_LOST_SLASH = re.compile(r"[a-z][a-z0-9+.-]+:/(?!/)", re.IGNORECASE)
"""A ``Path`` makes one / of two."""


def sink_for(job: Job, images: Images) -> Sink:
    """The sink; raises ConfigError for a path that says no format, or that is the source.

    Nothing is opened or written: that is for ``open``, once the server has answered.
    """
    out = job.settings.out
    if out is None:
        return Callback(lambda _: None)
    if callable(out):
        # Called and not awaited it would do nothing, in silence.
        if inspect.iscoroutinefunction(out):
            raise ConfigError("out= is a function to await", hint="give one that is called")
        return Callback(out)
    if not isinstance(out, str | os.PathLike):
        raise ConfigError(f"out is a {type(out).__name__}", hint="give a path or a callable")
    if has_scheme(os.fspath(out)) or _LOST_SLASH.match(os.fspath(out)):
        return _remote(out, job)
    path = Path(out)
    check_name(path)
    kind = _kind(path, job)
    # A name without an ending may be a mistake: only a folder that exists, or one written with a
    # slash, is meant as such.
    if kind is None and (path.is_dir() or os.fspath(out).endswith(("/", os.sep))):
        kind = Sidecars
    if kind is None:
        lost = "" if isinstance(out, str) else "; a Path loses its /, so give a str"
        raise ConfigError(
            f"out={str(out)!r} says no format",
            hint=f"end it in .jsonl, .parquet, .csv, .dataset, -%06d.tar or / for a folder{lost}",
        )
    if _is_read(path, images):
        raise ConfigError(f"out={str(out)!r} is the source itself", hint="choose another out=")
    return kind(path, resume=job.settings.resume, retry_errors=job.settings.retry_errors)


def _kind(path: Path, job: Job) -> Callable[..., Sink] | None:
    """What writes files of that name; None where it says no format."""
    if path.name.lower() == "metadata.jsonl" and not _is_of_lines(path):
        return partial(Exported, make=make_metadata)
    if path.suffix.lower() == ".tar" and PATTERN.search(path.name):
        return partial(Shards, read=reader(job.checked))
    kinds: dict[str, Callable[..., Sink]] = {
        ".jsonl": JsonLines,
        ".parquet": partial(Parquet, columns=job.columns),
        ".csv": partial(Exported, make=make_csv),
        ".dataset": partial(Exported, make=partial(make_dataset, job.columns, _card(job))),
    }
    return kinds.get(path.suffix.lower())


def _card(job: Job) -> Card:
    """What a card says of the question."""
    asked = job.checked.model_dump(mode="json", exclude_defaults=True)
    return Card(job.prompts.document, asked)


def _is_of_lines(path: Path) -> bool:
    """Whether a batch of an earlier version has written its lines there."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(8) == b'{"key": '
    except OSError:
        return False


def _remote(out: str | os.PathLike[str], job: Job) -> Sink:
    """Parts at an address; raises ConfigError for one where nothing can be written."""
    address = os.fspath(out)
    name = url_name(address)
    if not has_scheme(address):
        raise ConfigError("out= is an address that has lost a /", hint="give a str, not a Path")
    if (pushed := _DATASET.fullmatch(address)) is not None:
        return Exported(
            Path(f"{pushed[1].replace('/', '-')}.pushed"),
            resume=job.settings.resume,
            retry_errors=job.settings.retry_errors,
            make=partial(push_dataset, pushed[1], job.columns, _card(job)),
        )
    if is_url(address) or not is_remote(address):
        raise ConfigError(
            f"nothing can be written to {name}", hint="give a path, or an address like s3://"
        )
    if Path(address).suffix.lower() not in (".jsonl", ".parquet"):
        raise ConfigError(
            f"out={name!r} says no format that is written there",
            hint="end it in .jsonl or .parquet, a folder of parts; texts go to folders here",
        )
    return RemoteParts(
        address,
        resume=job.settings.resume,
        retry_errors=job.settings.retry_errors,
        columns=job.columns,
    )


def _is_read(path: Path, images: Images) -> bool:
    """Whether a file is the source itself."""
    try:
        return isinstance(images, str | os.PathLike) and path.is_file() and path.samefile(images)
    except (OSError, ValueError):  # one of them is not there
        return False
