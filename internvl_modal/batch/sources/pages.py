"""The pages of a PDF, each rendered when it is described; needs the extra ``pdf``."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.places import LocalFile, Place
from internvl_modal.batch.sources.unreadable import Pair
from internvl_modal.errors import ConfigError, ImageError
from internvl_modal.images.pdf import page_numbers, read_pages


class PdfPage:
    """One page as a file: reading it renders it, so that no queue holds pixels.

    A page at 2,688 pixels is 20 MB, and hundreds may wait in a queue; the number is a few bytes.
    """

    def __init__(self, source: str | bytes, name: str, number: int) -> None:
        self.name, self._source, self._number = name, source, number

    def __repr__(self) -> str:
        return f"PdfPage({self.name!r})"

    def read(self, size: int = -1, /) -> bytes:
        """The page as an uncompressed BMP; raises ImageError where it is damaged."""
        page = next(read_pages(self._source, pages=self._number))
        file = BytesIO()
        # Nothing is packed: it is decoded again at once.
        page.picture.save(file, "BMP")
        return file.getvalue()[: None if size < 0 else size]


def read_pdf(place: Place, choice: Choice) -> Iterator[Pair]:
    """The pages that ``choice`` names, by the keys FILE#NUMBER; raises ConfigError for no PDF."""
    source: str | bytes = place.name
    if not isinstance(place, LocalFile):
        with place.open() as file:
            source = file.read()
    try:
        numbers = page_numbers(source, pages=choice.pages)
    except ImageError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    for number in numbers:
        key = f"{place.name}#{number}"
        yield key, PdfPage(source, key, number)
