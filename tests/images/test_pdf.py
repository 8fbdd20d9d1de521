"""Pages of a PDF, one at a time."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_modal.errors import ConfigError, ImageError, MissingExtraError
from internvl_modal.images import prepare
from internvl_modal.images.pdf import LONGER_SIDE, is_pdf, parse_pages, read_pages
from tests.images.pictures import near

pytest.importorskip("pypdfium2", reason="pip install 'internvl-modal[pdf]'")


def pdf(pages: int, size: tuple[int, int] = (300, 400)) -> bytes:
    pictures = [Image.new("RGB", size, (10 * number, 0, 0)) for number in range(1, pages + 1)]
    out = io.BytesIO()
    pictures[0].save(out, "PDF", save_all=True, append_images=pictures[1:])
    return out.getvalue()


def test_pages_are_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(5))
    for source in (tmp_path / "a.pdf", str(tmp_path / "a.pdf"), pdf(5)):
        pages = list(read_pages(source, pages="2-9"))
        assert [page.number for page in pages] == [2, 3, 4, 5]
        for number, picture in pages:
            assert picture.size == (LONGER_SIDE * 3 // 4, LONGER_SIDE)
            assert near(picture.getpixel((5, 5)), (10 * number, 0, 0), 3)
            assert prepare(picture).info.grid == (3, 4)


@pytest.mark.parametrize(
    ("pages", "numbers"),
    [
        (None, [1, 2, 3, 4, 5]),
        ("1-20", [1, 2, 3, 4, 5]),
        ("2", [2]),
        (3, [3]),
        ("4-", [4, 5]),
        ("2,4-5, 2", [2, 4, 5]),
        ([5, 1], [5, 1]),
        (range(2, 4), [2, 3]),
    ],
)
def test_ways_to_name_pages(pages: Any, numbers: list[int]) -> None:
    assert parse_pages(pages, 5) == numbers


@pytest.mark.parametrize("pages", ["", "0", "6", "6-9", "3-2", "a", "1-b", "-3", "1,,2", [], [0]])
def test_pages_that_are_none(pages: Any) -> None:
    if pages == []:
        assert parse_pages(pages, 5) == []
        return
    with pytest.raises(ConfigError, match="names no pages of 5") as caught:
        parse_pages(pages, 5)
    assert "1-20" in caught.value.hint


def test_what_is_no_pdf(tmp_path: Path) -> None:
    for data in (b"hello", pdf(2)[:300]):
        with pytest.raises(ImageError, match="not a readable PDF"):
            next(read_pages(data))
    with pytest.raises(ImageError, match="missing"):
        next(read_pages(tmp_path / "missing.pdf"))
    (tmp_path / "a.bin").write_bytes(pdf(1))
    assert is_pdf(tmp_path / "a.bin")
    assert not is_pdf(__file__)
    assert not is_pdf(tmp_path / "missing.pdf")


def test_describe_says_pages() -> None:
    with pytest.raises(ImageError, match="a PDF, not a picture") as caught:
        prepare(pdf(1))
    assert "pages='1-20'" in caught.value.hint


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(MissingExtraError) as caught:
        next(read_pages(pdf(1)))
    assert "internvl-modal[pdf]" in caught.value.hint


def test_a_page_of_any_shape_has_a_size() -> None:
    (page,) = read_pages(pdf(1, (5_000, 2)))
    assert page.picture.width == LONGER_SIDE
    assert page.picture.height >= 1


def test_pages_can_be_left_before_the_end() -> None:
    pages = read_pages(pdf(5))
    assert [page.number for page in itertools.islice(pages, 2)] == [1, 2]
    pages.close()  # type: ignore[attr-defined]
    assert next(read_pages(pdf(2))).number == 1


MEASURE = """
import resource, sys
from internvl_modal.images.pdf import read_pages
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
pages = read_pages(sys.argv[1], pages="1-60")
for _ in range(5):
    next(pages)
before = peak()
print(sum(1 for _ in pages), peak() - before)
"""


def test_memory_does_not_grow_with_the_pages(tmp_path: Path) -> None:
    path = tmp_path / "long.pdf"
    pictures = [Image.effect_noise((600, 800), 50) for _ in range(3)]
    pictures[0].save(path, "PDF", save_all=True, append_images=pictures[1:] * 30)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    count, grown = map(int, done.stdout.split())
    assert count == 55
    assert grown < 40
