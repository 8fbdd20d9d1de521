"""From a row of a table to a picture and its key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from internvl_modal.batch.sources.unreadable import Unreadable
from internvl_modal.errors import ConfigError
from internvl_modal.images.names import is_data

# In the order of how sure they are: a table may well have an "image" and a "source" column.
COLUMNS = (
    "image", "path", "image_path", "file", "filename", "file_name", "url", "image_url", "source",
    "images", "image_urls", "image_paths", "file_names", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
"""Where a table holds its pictures, unless told; case does not matter."""
KEYS = ("key", "__key__")
"""Where it holds their keys, unless told; ``id`` too, where pictures have no names."""

Row = Mapping[str, Any]


class RowKey(str):
    """A key, and what 0.1.0 called the same row."""

    __slots__ = ("former",)
    former: str


class Rowed(tuple[Any, Any]):
    """A key, None where only the row's number is known, a picture, and the row they come from."""

    row: Row


class Table:
    """Rows of one source, called ``name`` ('' for those in memory).

    Made once for a source, since the columns are chosen by its first row. ``fields``: see
    ``Choice``; where there are some, rows are given along.
    """

    def __init__(
        self,
        name: str = "",
        *,
        column: str | None,
        key: str | None,
        fields: tuple[str, ...] | None = (),
        resolve: Callable[[str], str] = str,
    ) -> None:
        self._fields = fields
        self._name, self._column, self._key, self._resolve = name, column, key, resolve
        self._names: tuple[Any, ...] = ()
        self._known: list[Any] = []
        self._begun = False

    def pairs(self, rows: Iterable[Row | Unreadable]) -> Iterator[Any]:
        """A row's picture each, by its key, else its path, else its number."""
        for number, row in enumerate(rows):
            if isinstance(row, Unreadable):
                yield row.name, row
            else:
                yield self.pair(row, number)

    def pair(self, row: Row, number: int) -> Any:
        """The picture of one row; raises ConfigError if the first has no such column."""
        found = self._pair(row, number)
        if self._fields == ():
            return found
        rowed = Rowed(found if isinstance(found, tuple) else (None, found))
        rowed.row = (
            row
            if self._fields is None
            else {name: row[name] for name in self._fields if name in row}
        )
        return rowed

    def _pair(self, row: Row, number: int) -> Any:
        # {"bytes": ..., "path": ...} is one picture, although it looks like a row of two columns.
        if _is_picture(row):
            known: list[Any] = ["picture"]
            row = {"picture": row}
        else:
            known = self._candidates(row)
        place = f"{self._name}#{number}" if self._name else None
        if not known:
            # Later rows may lack the column: each is a failure of its own.
            lost = place or f"row {number}"
            return lost, Unreadable(lost, f"has no column {self._column or 'of pictures'}")
        values = (row[name] for name in known)
        value = next((each for each in values if not is_missing(each)), None)
        source, name = self._cell(value)
        chosen = self._chosen_key(row, known, named=name is not None)
        if chosen is None and self._key not in (None, known[0]):
            lost = place or f"row {number}"
            return lost, Unreadable(lost, f"has no key: its column {self._key} is empty")
        found = chosen if chosen is not None else (name or place)
        if found is None:
            return source
        return (self._beside_former(found, row, known[0], place) if place else found), source

    def _beside_former(self, found: str, row: Row, column: Any, place: str) -> str:
        """0.1.0 named a row of a file by its ``key``, its path though it is a base name, or place.

        It knew no ``id``.
        """
        value = row[column]
        name = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(name, str) or is_data(name):
            name = None
        former = str((row.get("key") if column != "key" else None) or name or place)
        if former == found:
            return found
        key = RowKey(found)
        key.former = former
        return key

    def check(self, names: Iterable[Any]) -> list[Any]:
        """The columns of pictures among ``names``; raises ConfigError where there is none."""
        listed = [name for name in names if name is not None]
        if self._column is not None:
            found = [name for name in listed if name == self._column]
        else:
            # The first of two names that differ by case only wins, hence the reverse order.
            there = {str(name).lower(): name for name in reversed(listed)}
            found = [there[name] for name in COLUMNS if name in there]
        for wanted, missing in (
            (self._column or "of pictures", not found),
            (self._key, self._key is not None and self._key not in listed),
        ):
            # Only for the first row: the columns of a table do not change, a line of JSON may lack
            # one.
            if missing and not self._begun:
                raise ConfigError(
                    f"{self._name or 'a row'} has no column {wanted}",
                    hint=f"pass column= or key=; there are {', '.join(map(str, listed)) or 'none'}",
                )
        for name in (*found[:1], *filter(None, [self._key])):
            if listed.count(name) > 1 and not self._begun:
                raise ConfigError(
                    f"{self._name or 'a row'} has {listed.count(name)} columns {name}",
                    hint="give each a name of its own",
                )
        self._begun = True
        return found

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Of the columns of a file, those to read."""
        listed = list(names)
        if self._fields is None:
            self.check(listed)
            return listed
        keys = {*KEYS, "id", self._key, *self._fields}
        return [*self.check(listed), *(name for name in listed if name in keys)]

    def _candidates(self, row: Row) -> list[Any]:
        names = tuple(row)
        # Rows of a million lines mostly have the same columns: looked up once.
        if names != self._names or not self._begun:
            self._names, self._known = names, self.check(names)
        return self._known

    def _chosen_key(self, row: Row, columns: list[Any], *, named: bool) -> str | None:
        known = KEYS if named else (*KEYS, "id")
        for column in (self._key,) if self._key is not None else known:
            value = row.get(column)
            # The column of pictures cannot name them as well.
            if column in columns[:1] or is_missing(value):
                continue
            # A missing number makes floats of pandas' whole ones, in what it writes too.
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            return os.fsdecode(value) if isinstance(value, bytes) else str(value)
        return None

    def _cell(self, value: Any) -> tuple[Any, str | None]:
        """The picture that a cell means, and its name where it has one."""
        if is_missing(value):
            return [], None
        if isinstance(value, str | os.PathLike):
            text = os.fsdecode(value)
            if is_data(text):
                return text, None
            return self._resolve(text), text
        if isinstance(value, Mapping):
            held = (value.get(name) for name in ("bytes", "path", "url", "image_url", "image"))
            return self._cell(next((each for each in held if not is_missing(each)), None))
        if is_list(value):
            return [self._cell(each)[0] or _nothing(n) for n, each in enumerate(value, 1)], None
        return value, None


def is_list(value: Any) -> bool:
    """Whether a cell holds several pictures.

    >>> is_list(["a.jpg", "b.jpg"]), is_list("a.jpg")
    (True, False)
    """
    return isinstance(value, list | tuple) or str(getattr(value, "dtype", "")) == "object"


def is_missing(value: Any) -> bool:
    """Whether a cell is empty, as each kind of table writes it."""
    if value is None or (isinstance(value, str | bytes | list | tuple) and not len(value)):
        return True
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    # NaN is the only value that is not equal to itself.
    return isinstance(value, float) and value != value  # noqa: PLR0124 - as pandas has it


def _is_picture(row: Row) -> bool:
    """Whether it is a picture itself, as ``datasets`` and OpenAI's clients write one."""
    return row.keys() <= {"bytes", "path"} and "bytes" in row


def _nothing(number: int) -> Unreadable:
    return Unreadable(f"picture {number} of the row", "is missing")
