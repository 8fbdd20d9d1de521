"""Text files that list pictures: lines, JSON lines, CSV.

A bad first line means that the file is something else, and is raised; a bad later one is a damaged
row, and fails alone. So a wrong file costs nothing, and a good one with a flaw gives all but that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.lines import is_text, lines_of
from internvl_modal.batch.sources.places import Place
from internvl_modal.batch.sources.rows import Row, Table
from internvl_modal.batch.sources.separated import DELIMITERS, MalformedError, records
from internvl_modal.batch.sources.unreadable import Pair, Unreadable
from internvl_modal.errors import ConfigError

_NO_TEXT = "save it as UTF-8 text"


def table_of(place: Place, choice: Choice) -> Table:
    """The rows of a file: paths in them start at its folder."""
    return Table(
        place.name,
        column=choice.column,
        key=choice.key,
        fields=choice.fields,
        resolve=place.resolve,
    )


def read_text(place: Place, choice: Choice) -> Iterator[Pair]:
    """One path or URL on each line; names of any bytes, where such a file is there."""
    good = False
    with lines_of(place) as lines:
        for number, line in lines:
            name = line.strip()
            if not name:
                continue
            source = place.resolve(name)
            if is_text(line) or os.path.lexists(source):
                good = True
                yield name, source
            elif good:
                yield _bad_line(place, number, "is no UTF-8 text")
            else:
                raise ConfigError(f"{place.name}: line {number} is no UTF-8 text", hint=_NO_TEXT)


def read_jsonl(place: Place, choice: Choice) -> Iterator[Any]:
    """One object on each line; what is none is a failure of its own, but for the first."""
    with lines_of(place) as lines:
        yield from table_of(place, choice).pairs(_objects(lines, place))


def _objects(lines: Iterable[tuple[int, str]], place: Place) -> Iterator[Row | Unreadable]:
    good, row = False, -1
    for number, line in lines:
        if not line.strip():
            continue
        # Rows are counted and not lines, since keys of 0.1.0 were.
        row += 1
        document = _parsed(line)
        if document is not None:
            good = True
            yield document
        elif good:
            name = f"{place.name}#{row}"
            yield Unreadable(name, f"line {number} is no JSON object")
        else:
            raise ConfigError(
                f"line {number} of {place.name} is no JSON object", hint='write {"image": ...}'
            )


def _parsed(line: str) -> Mapping[str, Any] | None:
    if not is_text(line):
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def read_csv(place: Place, choice: Choice) -> Iterator[Any]:
    """Rows under a line of names; raises ConfigError for a quote that is never closed.

    The delimiter is what makes a column of pictures appear, unless it is given.
    """
    with lines_of(place) as lines:
        table = table_of(place, choice)
        try:
            first = next(lines, (1, ""))
            given = choice.delimiter
            if given is None and first[1][:4].lower() == "sep=" and first[1][4:5] not in "\r\n":
                given, first = first[1][4], next(lines, (2, ""))  # as Excel writes it
            delimiter = given or _sniff(first[1], place, choice)
            _, names = next(records([first], delimiter), (1, []))
            table.check(names)
            yield from table.pairs(_rows(records(lines, delimiter), names, place))
        except MalformedError as error:
            raise ConfigError(
                f"{place.name}, {error}", hint="close it, or write a quote in a cell as two"
            ) from error


def _rows(
    found: Iterable[tuple[int, list[str]]], names: list[str], place: Place
) -> Iterator[Row | Unreadable]:
    for number, (line, cells) in enumerate(found):
        if all(map(is_text, cells)):
            # A short row lacks its last columns; cells beyond the names are dropped, as Excel
            # writes empty ones.
            yield dict(zip(names, cells, strict=False))
        else:
            yield Unreadable(f"{place.name}#{number}", f"line {line} is no UTF-8 text")


def _sniff(line: str, place: Place, choice: Choice) -> str:
    """What the names are divided by: the first that leaves a column of pictures."""
    error = None
    for delimiter in DELIMITERS:
        _, names = next(records([(1, line)], delimiter), (1, []))
        try:
            table_of(place, choice).check(names)
        except ConfigError as caught:
            if error is None or len(names) > error[0]:
                error = len(names), caught
        else:
            return delimiter
    if error is not None:
        raise error[1]
    return DELIMITERS[0]


def _bad_line(place: Place, number: int, reason: str) -> Pair:
    name = f"{place.name}#{number - 1}"
    return name, Unreadable(name, f"line {number} {reason}")
