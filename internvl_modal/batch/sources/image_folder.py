"""Folders of pictures, with the tables that ``imagefolder`` of Hugging Face knows in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from internvl_modal.batch.outcome import key_hash
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.folders import walk
from internvl_modal.batch.sources.manifests import read_csv, read_jsonl
from internvl_modal.batch.sources.parquet import read_parquet
from internvl_modal.batch.sources.places import LocalFile
from internvl_modal.batch.sources.unreadable import going_on
from internvl_modal.errors import ConfigError

_TABLES = {
    "metadata.csv": read_csv,
    "metadata.jsonl": read_jsonl,
    "metadata.parquet": read_parquet,
}


def read_image_folder(folder: str, choice: Choice) -> Iterator[Any]:
    """The pictures below a folder, by their paths.

    Where a column is named, by the rows of its ``metadata`` files first; then those that no row
    lists. Raises ConfigError where there is no such file.
    """
    if choice.given:
        return _listed_first(folder, choice)
    return walk(folder)


def _listed_first(folder: str, choice: Choice) -> Iterator[Any]:
    listed, tables = set(), 0
    for table in walk(folder, _TABLES.__contains__):
        if isinstance(table, tuple):
            continue  # the second walk says it
        tables += 1
        place = LocalFile(table)
        rows = _TABLES[Path(table).name](place, choice)
        first = (
            list(islice(rows, 1)) if tables == 1 else []
        )  # without such a column, nothing is right
        for key, source in chain(first, going_on(table, rows)):
            # A row's picture must not come again when the folder is walked.
            for each in source if isinstance(source, list) else [source]:
                if isinstance(each, str):
                    listed.add(key_hash(os.path.normpath(each)))
            yield key, source
    if not tables:
        raise ConfigError(
            f"{choice.given}, but {folder} has no columns", hint=f"add {', '.join(_TABLES)}"
        )
    for each in walk(folder):
        if isinstance(each, tuple) or key_hash(os.path.normpath(each)) not in listed:
            yield each
