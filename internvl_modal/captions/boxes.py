"""Where something is in a picture: InternVL's boxes of 0 to 1000 as pixels of the original.

InternVL was trained on ``<ref>the red cup</ref><box>[[x1, y1, x2, y2]]</box>`` with thousandths of
the picture's width and height, whatever it was shrunk to and however it was cut into tiles (the
grounding data format of InternVL's documentation). Servers leave out the marks, some the words too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from internvl_modal._utils.lazy_module import LazyModule
from internvl_modal.errors import OutputInvalidError
from internvl_modal.protocol.turns import neutralise
from internvl_modal.schema.results import Description, ImageInfo

if TYPE_CHECKING:
    from PIL import Image
else:  # Pillow is imported where something is drawn
    Image = LazyModule("PIL.Image")

__all__ = ["Box", "Located", "boxes_in", "grounding_prompt"]

Corners: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom."""

_SCALE = 1000
_NUMBER = r"\s*(-?\d{1,6}(?:\.\d{1,9})?)\s*"
_BOX = re.compile(rf"[\[(]{','.join([_NUMBER] * 4)}[\])]")
_NAME = re.compile(r"<ref>(.{1,300}?)</ref>", re.S)
_LABEL = re.compile(r'"label"\s*:\s*"([^"\n]{1,300})"')


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, upright: as the picture is seen, EXIF's orientation applied.

    >>> Box("the cup", 10, 20, 110, 220).size
    (100, 200)
    """

    label: str
    left: int
    top: int
    right: int
    bottom: int

    @property
    def corners(self) -> Corners:
        """Left, top, right and bottom, as ``Image.crop`` takes them."""
        return self.left, self.top, self.right, self.bottom

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top

    def stored(self, info: ImageInfo) -> Corners:
        """The same rectangle in the pixels of the file, before its orientation is applied."""
        width, height = info.width, info.height
        x0, y0, x1, y1 = self.corners
        if info.orientation >= 5:  # the axes are swapped
            x0, y0, x1, y1 = y0, x0, y1, x1
        if info.orientation in (2, 3, 7, 8):
            x0, x1 = width - x1, width - x0
        if info.orientation in (3, 4, 6, 7):
            y0, y1 = height - y1, height - y0
        return x0, y0, x1, y1


@dataclass(frozen=True)
class Located:
    """The boxes that were found, none where the model named none; and its answer.

    >>> found = client.locate("table.jpg", "the red cup")  # doctest: +SKIP
    >>> found.draw().save("found.png")  # doctest: +SKIP
    """

    what: str
    boxes: tuple[Box, ...]
    answer: Description
    _picture: Callable[[], Image.Image] = field(repr=False, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, whose pixels the boxes count."""
        return upright(self.answer.images[0])

    def draw(self, colour: str = "red", width: int | None = None) -> Image.Image:
        """The picture with its boxes and their labels; ``width`` of the lines in pixels."""
        from PIL import ImageDraw

        picture = self._picture().convert("RGB")
        line = width or max(2, round(max(picture.size) / 300))
        pen = ImageDraw.Draw(picture)
        for box in self.boxes:
            left, top, right, bottom = box.corners
            # The right and bottom edges are behind the last pixel.
            pen.rectangle(
                (left, top, max(left, right - 1), max(top, bottom - 1)), None, colour, line
            )
            place = (left + line + 2, top + line)
            pen.text(place, box.label, colour, font_size=max(12, 6 * line))
        return picture


def grounding_prompt(what: str) -> str:
    """InternVL's own words for it; marks of its own in ``what`` are read as plain text."""
    named = neutralise(" ".join(what.split()))
    return (
        "Please provide the bounding box coordinate of the region this sentence describes:"
        f" <ref>{named}</ref>"
    )


def upright(info: ImageInfo) -> tuple[int, int]:
    """Width and height once the orientation is applied."""
    size = info.width, info.height
    return size if info.orientation < 5 else size[::-1]


def boxes_in(answer: Description, what: str) -> tuple[Box, ...]:
    """The boxes in an answer about one picture.

    Raises OutputInvalidError for numbers that are no thousandths: pixels of a size that only the
    model knows. Boxes without an area are left out, which models give for what is not there.
    """
    text, found = answer.text, []
    width, height = upright(answer.images[0])
    for match in _BOX.finditer(text):
        numbers = [float(number) for number in match.groups()]
        # Whole numbers are thousandths; 0.25 is a share.
        if max(numbers) <= 1 and "." in match[0]:
            numbers = [_SCALE * number for number in numbers]
        if not all(0 <= number <= _SCALE for number in numbers):
            raise OutputInvalidError(
                f"the box {match[0]} is not within 0 and {_SCALE}",
                hint="the model counts otherwise; ask an InternVL that was trained to locate",
                text=text,
            )
        x0, x1 = _span(numbers[0::2], width)
        y0, y1 = _span(numbers[1::2], height)
        if x1 > x0 and y1 > y0:
            found.append(Box(_label(text, match) or what, x0, y0, x1, y1))
    return tuple(dict.fromkeys(found))


def _span(ends: list[float], length: int) -> tuple[int, int]:
    """Pixels from one end to the other; one at least, where the ends are two."""
    low, high = sorted(ends)
    first, last = round(low * length / _SCALE), round(high * length / _SCALE)
    if high > low and first == last:  # small things in small pictures
        first = min(first, length - 1)
        last = first + 1
    return first, last


def _label(text: str, match: re.Match[str]) -> str:
    """The name before a box, or beside it in JSON."""
    before = _NAME.findall(text, 0, match.start())
    if before:
        return str(before[-1]).strip()
    start, end = text.rfind("{", 0, match.start()), text.find("}", match.end())
    beside = _LABEL.search(text, start, end) if start >= 0 and end >= 0 else None
    return beside[1] if beside else ""
