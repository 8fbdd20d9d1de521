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
from internvl_modal.batch.sources.rows import Rowed
from internvl_modal.batch.sources.unreadable import going_on
from internvl_modal.errors import ConfigError

_TABLES = {
    "metadata.csv": read_csv,
    "metadata.jsonl": read_jsonl,
    "metadata.parquet": read_parquet,
}


def read_image_folder(folder: str, choice: Choice) -> Iterator[Any]:
    """The pictures below a folder, by their paths.

    Where a column is named, or a prompt may name one, by the rows of its ``metadata`` files first;
    then those that no row lists. Raises ConfigError where there is no such file and a column is
    named.
    """
    if choice.given or choice.fields:
        return _listed_first(folder, choice)
    return walk(folder)


def _by_path(pair: Any) -> Any:
    """A row's picture by the key that the folder gives it."""
    if not isinstance(pair, Rowed) or not isinstance(pair[1], str):
        return pair
    found = Rowed((pair[1], pair[1]))
    found.row = pair.row
    return found


def _listed_first(folder: str, choice: Choice) -> Iterator[Any]:
    listed, tables = set(), 0
    for table in walk(folder, _TABLES.__contains__):
        if isinstance(table, tuple):
            continue  # the second walk says it
        tables += 1
        rows = _TABLES[Path(table).name](LocalFile(table), choice)
        try:
            first = list(islice(rows, 1)) if tables == 1 or not choice.given else []
        except ConfigError:
            if choice.given:  # without such a column, nothing is right
                raise
            continue  # nobody has named it: another program's file
        for pair in chain(first, going_on(table, rows)):
            # A row's picture must not come again when the folder is walked.
            for each in pair[1] if isinstance(pair[1], list) else [pair[1]]:
                if isinstance(each, str):
                    listed.add(key_hash(os.path.normpath(each)))
            yield pair if choice.column or choice.key else _by_path(pair)
    if choice.given and not tables:
        raise ConfigError(
            f"{choice.given}, but {folder} has no columns", hint=f"add {', '.join(_TABLES)}"
        )
    for each in walk(folder):
        if isinstance(each, tuple) or key_hash(os.path.normpath(each)) not in listed:
            yield each
