"""Pages of a PDF as pictures, one at a time; needs the extra ``pdf`` (pypdfium2).

Pages are rendered and not searched for pictures in them: what a reader sees is the page. Rendering
is PDFium's, the engine of Chrome.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from internvl_modal.errors import ConfigError, ImageError, MissingExtraError
from internvl_modal.images.names import source_name

if TYPE_CHECKING:
    from PIL.Image import Image

LONGER_SIDE = 2_688
"""Pixels of a page's longer side: six tiles, so that any grid is shrunk to, never enlarged.

2,688 = 6 x 448.
"""
_ONE_AT_A_TIME = threading.Lock()
"""PDFium may be used by one thread at a time, whatever the documents."""


class Page(NamedTuple):
    """One page; ``number`` counts from 1."""

    number: int
    picture: Image


def is_pdf(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as PDFs do; False for what cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return b"%PDF-" in file.read(1024)
    except (OSError, ValueError):
        return False


def parse_pages(pages: str | int | Sequence[int] | None, count: int) -> list[int]:
    """The page numbers, from 1, that ``pages`` names; all of ``count`` where it is None.

    ``"1-20"``, ``"3"``, ``"2,5-7"``, ``"9-"`` (to the last) or numbers. Pages beyond the last are
    left out of a range; raises ConfigError where none is left, or where one that is named alone
    is not there.

    >>> parse_pages("2,5-7", 6), parse_pages("5-", 6)
    ([2, 5, 6], [5, 6])
    """
    if pages is None:
        return list(range(1, count + 1))
    parts = [str(pages)] if isinstance(pages, int) else pages
    parts = parts.split(",") if isinstance(parts, str) else [str(part) for part in parts]
    found: list[int] = []
    for part in parts:
        # "9-" has a dash and no last page; "9" has neither.
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise _wrong(pages, count)
        end = int(last) if last else (count if dash else int(first))
        # A range may reach beyond the last page, a page that is named may not.
        chosen = range(int(first), (min(end, count) if dash else end) + 1)
        if not chosen or chosen[0] < 1 or chosen[-1] > count:
            raise _wrong(pages, count)
        found += chosen
    # A page that is named twice would be two pictures of one key.
    return list(dict.fromkeys(found))


def _wrong(pages: object, count: int) -> ConfigError:
    return ConfigError(
        f"pages={pages!r} names no pages of {count}", hint="such as '1-20', '2,5-7', '9-' or 3"
    )


def page_numbers(
    source: str | os.PathLike[str] | bytes, *, pages: str | int | Sequence[int] | None = None
) -> list[int]:
    """The numbers of the pages that ``read_pages`` would render; it raises the same."""
    with closing(_Document(source)) as document:
        return parse_pages(pages, document.count)


def read_pages(
    source: str | os.PathLike[str] | bytes, *, pages: str | int | Sequence[int] | None = None
) -> Iterator[Page]:
    """Render the pages that are named, each when it is asked for; only one is held in memory.

    Raises MissingExtraError, ConfigError for wrong ``pages``, and ImageError for what is not a
    PDF, needs a password or is damaged.
    """
    with closing(_Document(source)) as document:
        for number in parse_pages(pages, document.count):
            yield Page(number, document.render(number))


class _Document:
    """A PDF that PDFium has open; every use of PDFium is under one lock."""

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        try:
            import pypdfium2 as pdfium
        except ImportError as error:
            raise MissingExtraError("pypdfium2", "pdf") from error
        self._error: type[Exception] = pdfium.PdfiumError
        self._name = source_name(source)
        given = source if isinstance(source, bytes) else os.fspath(source)
        try:
            with _ONE_AT_A_TIME:
                self._document = pdfium.PdfDocument(given)
                self.count = len(self._document)
        except (self._error, OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def render(self, number: int) -> Image:
        """The page as RGB on white."""
        try:
            with _ONE_AT_A_TIME, closing(self._document[number - 1]) as page:
                width, height = page.get_size()
                # A damaged page may have no size; it then fails below and not by a division.
                scale = LONGER_SIDE / max(width, height, 1e-6)
                with closing(page.render(scale=scale, rev_byteorder=True)) as bitmap:
                    picture: Image = bitmap.to_pil().convert("RGB")
        except (self._error, OSError, ValueError) as error:
            raise self._unreadable(error, f"page {number}: ") from error
        return picture

    def close(self) -> None:
        """Under the lock as well: PDFium frees memory that another thread may be using."""
        with _ONE_AT_A_TIME:
            self._document.close()

    def _unreadable(self, error: Exception, where: str = "") -> ImageError:
        # PDFium says it in words only.
        if "password" in str(error).lower():
            what, hint = "needs a password", "save it without one (qpdf --decrypt)"
        else:
            what, hint = f"not a readable PDF: {error!s:.200}", "give a PDF that is whole"
        return ImageError(where + what, source=self._name, hint=hint)
