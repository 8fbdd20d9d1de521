"""Pages of a PDF as a source of many pictures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

import internvl_modal as ivl

pytest.importorskip("pypdfium2", reason="pip install 'internvl-modal[pdf]'")


def pdf(pages: int) -> bytes:
    pictures = [Image.new("RGB", (300, 400), (10 * number, 0, 0)) for number in range(pages)]
    out = io.BytesIO()
    pictures[0].save(out, "PDF", save_all=True, append_images=pictures[1:])
    return out.getvalue()


@pytest.mark.parametrize(("pages", "numbers"), [(None, [1, 2, 3, 4]), ("2-9", [2, 3, 4]), (3, [3])])
def test_each_page_is_an_input(
    client: ivl.Client, pages: str | int | None, numbers: list[int]
) -> None:
    Path("a.pdf").write_bytes(pdf(4))
    found = list(client.describe_many("a.pdf", pages=pages, ordered=True))
    assert [outcome.key for outcome in found] == [f"a.pdf#{number}" for number in numbers]
    assert all(outcome.ok for outcome in found), found
    assert not any(isinstance(outcome.source, Image.Image) for outcome in found)


def test_a_damaged_page_fails_alone(client: ivl.Client) -> None:
    whole = pdf(3)
    broken = whole.replace(b"/Kids [ ", b"/Kids [ 999 0 R ", 1).replace(b"/Count 3", b"/Count 4", 1)
    assert broken != whole
    Path("a.pdf").write_bytes(broken)
    found = list(client.describe_many("a.pdf", ordered=True))
    assert len(found) == 4
    assert sum(outcome.ok for outcome in found) == 3
    (failed,) = [outcome for outcome in found if not outcome.ok]
    assert "page 1" in str(failed.error)


@pytest.mark.parametrize("data", [b"no PDF", b"%PDF-1.4 and nothing more"])
def test_what_is_no_pdf_is_named(client: ivl.Client, data: bytes) -> None:
    Path("a.pdf").write_bytes(data)
    with pytest.raises(ivl.ConfigError, match=r"a\.pdf"):
        list(client.describe_many("a.pdf"))


def test_pages_that_are_not_there(client: ivl.Client) -> None:
    Path("a.pdf").write_bytes(pdf(2))
    with pytest.raises(ivl.ConfigError, match="names no pages of 2"):
        list(client.describe_many("a.pdf", pages="7"))
