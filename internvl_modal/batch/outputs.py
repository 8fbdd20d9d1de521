"""Which sink ``out=`` means."""

from __future__ import annotations

import os
from pathlib import Path

from internvl_modal.batch.options import BatchSettings
from internvl_modal.batch.parquet import Parquet
from internvl_modal.batch.sidecars import Sidecars
from internvl_modal.batch.sinks import Callback, JsonLines, Sink
from internvl_modal.errors import ConfigError


def sink_for(settings: BatchSettings) -> Sink:
    """The sink; raises ConfigError for a path that says no format."""
    out = settings.out
    if out is None:
        return Callback(lambda _: None)
    if callable(out):
        return Callback(out)
    if not isinstance(out, str | os.PathLike):
        raise ConfigError(f"out is a {type(out).__name__}", hint="give a path or a callable")
    path = Path(out)
    kinds: dict[str, type[JsonLines | Parquet]] = {".jsonl": JsonLines, ".parquet": Parquet}
    kind = kinds.get(path.suffix.lower())
    if kind is None and (path.is_dir() or os.fspath(out).endswith(("/", os.sep))):
        kind = Sidecars
    if kind is None:
        raise ConfigError(
            f"out={str(out)!r} says no format", hint="end it in .jsonl, .parquet or / for a folder"
        )
    return kind(path, resume=settings.resume, retry_errors=settings.retry_errors)
