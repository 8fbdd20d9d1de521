"""CSV: cells of any length, and no quote that swallows the rows behind it in silence.

Python's own reader takes what follows an open quote for a cell, and limits cells for the whole
process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

DELIMITERS = ",;\t|"


class MalformedError(ValueError):
    """A quote does not end where its cell does."""


def records(lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Cells of each record, and the line it begins on; empty lines are none.

    Blanks around cells that are not quoted are dropped. Raises MalformedError.

    >>> list(records([(1, 'a,"b, c"\\n')], ","))
    [(1, ['a', 'b, c'])]
    """
    reader = _Record(delimiter)
    first = 0
    for number, line in lines:
        if not reader.open:
            first = number
        if reader.feed(number, line):
            cells = reader.take()
            if cells != [""]:
                yield first, cells
    if reader.open:
        raise reader.malformed()


class _Record:
    """One record, line by line."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._cells: list[str] = []
        self._parts: list[str] = []
        self._opened = 0

    @property
    def open(self) -> bool:
        """Whether the next line belongs to it."""
        return self._opened > 0

    def take(self) -> list[str]:
        """The cells; begins the next."""
        cells, self._cells = self._cells, []
        return cells

    def malformed(self) -> MalformedError:
        """What is wrong with the quote that is open."""
        return MalformedError(f"line {self._opened}: the quote opened there is never closed")

    def feed(self, number: int, line: str) -> bool:
        """Take a line; whether the record ends with it."""
        # The usual line has no quote at all, and is split as it is.
        if not self.open and '"' not in line:
            self._cells = [cell.strip(" \r\n") for cell in line.split(self._delimiter)]
            return True
        at = 0
        while True:
            if not self.open:
                start = at + len(line[at:]) - len(line[at:].lstrip(" "))
                if line[start : start + 1] != '"':
                    end = line.find(self._delimiter, at)
                    self._cells.append(line[at : end if end >= 0 else None].strip(" \r\n"))
                    if end < 0:
                        return True
                    at = end + 1
                    continue
                self._opened, at = number, start + 1
            at = self._close(line, at)
            if at < 0:
                return False
            if at == len(line):
                return True

    def _close(self, line: str, at: int) -> int:
        """Where the cell after a quoted one begins, or the line ends; -1 if the quote is open."""
        while True:
            quote = line.find('"', at)
            if quote < 0:
                self._parts.append(line[at:])
                return -1
            self._parts.append(line[at:quote])
            if line[quote + 1 : quote + 2] != '"':
                break
            # Two quotes in a quoted cell are one (RFC 4180).
            self._parts.append('"')
            at = quote + 2
        rest = line[quote + 1 :]
        behind = rest.lstrip(" ")
        if behind.strip("\r\n") and not behind.startswith(self._delimiter):
            raise MalformedError(
                f"line {self._opened}: the quote opened there is not closed at its cell's end"
            )
        self._cells.append("".join(self._parts))
        self._parts, self._opened = [], 0
        if not behind.startswith(self._delimiter):
            return len(line)
        return len(line) - len(behind) + 1
