"""CSV, JSON lines, Parquet and rows: every row gives a picture or says why not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet

import internvl_modal as ivl
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.inputs import read
from tests.batch.sources import found, items, png, until_it_raises


def csv(text: str, name: str = "list.csv", **choice: Any) -> dict[str, Any]:
    Path(name).write_bytes(text.encode())
    return found(name, **choice)


@pytest.mark.parametrize(
    ("text", "line", "before"),
    [
        ('image,caption\na.png,"Open daily\nb.png,x\nc.png,y\n', 2, []),
        ('image,caption\na.png,x\nb.png,"Open\nc.png,"nice"\n', 3, ["a.png"]),
        ('image,caption\na.png,"two\nlines"\nb.png,"x"y\nc.png,z\n', 4, ["a.png"]),
        ('image,caption\na.png,"x""\n', 2, []),
        ('"image,caption\na.png,x\n', 1, []),
    ],
)
def test_a_quote_that_is_never_closed(text: str, line: int, before: list[str]) -> None:
    Path("list.csv").write_text(text)
    read_so_far, error = until_it_raises("list.csv")
    assert list(read_so_far) == before
    assert f"list.csv, line {line}: the quote opened there" in error


def test_cells_as_they_are_written() -> None:
    rows = 'image,caption\n"a ""b"".png","x, y\nz"\n b.png , "q" \nc.png\n"d.png",""\n\n" e.png",\n'
    assert list(csv(rows)) == ['a "b".png', "b.png", "c.png", "d.png", " e.png"]
    assert list(csv(rows.replace("\n", "\r\n"))) == list(csv(rows))
    assert list(csv("image\ra.png\rb.png\r")) == ["a.png", "b.png"]
    assert list(csv("image\na.png\nb.png")) == ["a.png", "b.png"]
    assert list(csv(" caption , Image \nx, a.png \n")) == ["a.png"]


def test_cells_of_any_length() -> None:
    long = "x" * 3_000_000
    assert list(csv(f'caption,image\n"{long}",a.png\n{long},b.png\n')) == ["a.png", "b.png"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_divides_is_seen(delimiter: str) -> None:
    rows = "caption,key,image\nx,1,a.png\n,2,b.png\n".replace(",", delimiter)
    assert list(csv(rows)) == ["1", "2"]
    assert list(csv(f"sep={delimiter}\n{rows}")) == ["1", "2"]
    assert list(csv(rows, delimiter=delimiter)) == ["1", "2"]


def test_what_divides_is_said() -> None:
    assert list(csv("a,b~image\nx,y~a.png\n", delimiter="~")) == ["a.png"]
    assert list(csv("n\timage\n1\ta.png\n", "list.tsv")) == ["a.png"]
    with pytest.raises(ivl.ConfigError, match=r"no column of pictures.*there are a, b\)"):
        csv("a;b\nx;y\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "image;n\nä.png;1\n€.png;2\n"),
        ("list.jsonl", '{"image": "ä.png"}\n{"image": "€.png"}\n'),
        ("list.txt", "./ä.png\n./€.png\n"),
    ],
)
def test_encodings(name: str, text: str, encoding: str) -> None:
    Path(name).write_bytes(text.encode(encoding))
    assert [Path(each.key).name for each in items(name)] == ["ä.png", "€.png"]


def test_bytes_that_are_no_text() -> None:
    Path(os.fsdecode(b"\xff.png")).write_bytes(png())
    Path("list.txt").write_bytes(b"\xff.png\na.png\n\xfe.png\nb.png\n")
    read_so_far = found("list.txt")
    assert list(read_so_far) == ["\udcff.png", "a.png", "list.txt#2", "b.png"]
    assert read_so_far["list.txt#2"] == "line 3 is no UTF-8 text"
    for name, rows in {
        "list.csv": b"image,n\na.png,1\nb.png,\xe4\nc.png,3\n",
        "list.jsonl": b'{"image": "a.png"}\n{"image": "\xe4"}\n{"image": "c.png"}\n',
    }.items():
        Path(name).write_bytes(rows)
        read_so_far = found(name)
        assert list(read_so_far) == ["a.png", f"{name}#1", "c.png"]
        assert read_so_far[f"{name}#1"].startswith("line ")
    Path("list.csv").write_bytes("image\na.png\nb.png\n".encode("utf-16")[:-3])
    read_so_far, error = until_it_raises("list.csv")
    assert (list(read_so_far), "list.csv, line 3: truncated data" in error) == (["a.png"], True)


def test_a_file_that_shrinks_while_it_is_read() -> None:
    for name in ("list.csv", "list.jsonl", "list.txt"):
        line = {"list.csv": "a.png", "list.jsonl": '{"image": "a.png"}', "list.txt": "a.png"}[name]
        Path(name).write_text(("image\n" if name == "list.csv" else "") + f"{line}\n" * 100_000)
        rows = read(name, Choice())
        next(rows)
        os.truncate(name, 50_000)
        with pytest.raises(ivl.ConfigError, match=f"{name} became shorter while it was read"):
            list(rows)


def jsonl(*rows: Any) -> dict[str, Any]:
    Path("deep").mkdir(exist_ok=True)
    Path("deep/list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return found("deep/list.jsonl")


def test_json_lines_as_people_write_them() -> None:
    assert jsonl(
        {"image": None, "url": "https://x.org/a.jpg", "key": 0},
        {"image": "", "path": "b.png"},
        {"image_url": {"url": "c.png"}, "key": False},
        {"image_url": {"url": "data:image/png;base64,AA=="}, "key": "d"},
        {"image": {"path": "e.png", "bytes": None}},
        {"images": ["f.png", "https://x.org/g.jpg"], "key": "fg"},
        {"images": [{"type": "image_url", "image_url": {"url": "h.png"}}]},
        {"image": None},
        {"caption": "no picture"},
        {"image": "i.png", "key": None},
        {"image": "j.png", "key": ""},
    ) == {
        "0": "https://x.org/a.jpg",
        "b.png": "deep/b.png",
        "False": "deep/c.png",
        "d": "data:image/png;base64,AA==",
        "e.png": "deep/e.png",
        "fg": ["deep/f.png", "https://x.org/g.jpg"],
        "deep/list.jsonl#6": ["deep/h.png"],
        "deep/list.jsonl#7": [],
        "deep/list.jsonl#8": "has no column of pictures",
        "i.png": "deep/i.png",
        "j.png": "deep/j.png",
    }


def test_a_line_that_is_too_deep() -> None:
    Path("list.jsonl").write_text('{"image": "a.png"}\n' + "[" * 100_000 + "\n")
    assert found("list.jsonl")["list.jsonl#1"] == "line 2 is no JSON object"


def test_columns_that_are_named() -> None:
    rows = [{"n": 1, "a": "x.png", "b": "y.png"}, {"n": 2, "a": "z.png"}]
    Path("list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lost = "list.jsonl#1"
    assert found("list.jsonl", column="b", key="n") == {
        "1": "y.png", lost: "has no column b",
    }  # fmt: skip
    for choice in ({"column": "b", "key": "m"}, {"column": "c"}):
        with pytest.raises(ivl.ConfigError, match=r"list\.jsonl has no column [mc].*are n, a, b"):
            found("list.jsonl", **choice)


def write(rows: list[dict[str, Any]], **how: Any) -> None:
    parquet.write_table(arrow.Table.from_pylist(rows), "list.parquet", **how)


def test_parquet_as_datasets_writes_it() -> None:
    """``path`` is a base name, which pictures of several folders share."""
    cells = [{"bytes": png(n), "path": f"{n % 2}.png"} for n in range(4)]
    write([{"image": cell} for cell in cells])
    assert found("list.parquet") == {f"list.parquet#{n}": png(n) for n in range(4)}
    for name in ("id", "key"):
        write([{"image": cell, name: n} for n, cell in enumerate(cells)])
        assert found("list.parquet") == {f"{n}": png(n) for n in range(4)}
    write([{"images": [cell, cell], "no": n} for n, cell in enumerate(cells)])
    assert found("list.parquet", key="no") == {f"{n}": [png(n)] * 2 for n in range(4)}
    write([{"image": {"bytes": None, "path": f"x/{n}.png"}, "id": n} for n in range(2)])
    assert found("list.parquet") == {"x/0.png": "x/0.png", "x/1.png": "x/1.png"}
    write([{"image": {"bytes": png(), "path": None}}, {"image": None}])
    assert found("list.parquet") == {"list.parquet#0": png(), "list.parquet#1": []}


@pytest.mark.parametrize("checked", [True, False])
def test_a_damaged_page_of_parquet(checked: bool) -> None:
    """The rest goes on; without checksums a flipped bit shows where it breaks the packing."""
    rows = [{"image": png(n), "key": str(n)} for n in range(400)]
    write(
        rows,
        row_group_size=100,
        write_page_checksum=checked,
        compression="zstd",
        use_dictionary=False,
    )
    group = parquet.ParquetFile("list.parquet").metadata.row_group(1)
    damaged = bytearray(Path("list.parquet").read_bytes())
    start = group.column(0).data_page_offset
    damaged[start + 200 : start + 230] = bytes(30)
    Path("list.parquet").write_bytes(damaged)
    read_so_far = found("list.parquet")
    lost = read_so_far.pop("list.parquet#100-199")
    assert lost.startswith("rows 100 to 199 (row group 1) cannot be read: ")
    assert set(read_so_far) == {str(n) for n in range(400) if not 100 <= n < 200}


def test_parquet_that_is_cut_is_named() -> None:
    write([{"image": png(n)} for n in range(3)])
    whole = Path("list.parquet").read_bytes()
    for cut in (0, 3, 100, len(whole) - 9, len(whole) - 1):
        Path("list.parquet").write_bytes(whole[:cut])
        with pytest.raises(ivl.ConfigError, match=r"list\.parquet: .*is it a Parquet file"):
            found("list.parquet")


def test_rows_as_dicts() -> None:
    rows = [{"image": "a.png", "n": 1}, {"image": png(), "n": 2}, {"image": None, "n": 3}, {"n": 4}]
    assert found(rows) == {
        "a.png": "a.png",
        "#1": png(),
        "#2": [],
        "row 3": "has no column of pictures",
    }
    assert found(iter(rows[:3]), key="n") == {"1": "a.png", "2": png(), "3": []}
    assert found([{"bytes": png(), "path": "x.png"}]) == {"#0": png()}
    assert found([("k", {"bytes": png(), "path": None})]) == {"k": png()}


def test_rows_without_a_picture_fail_once(client: ivl.Client) -> None:
    taken = []

    def rows() -> Iterator[dict[str, str]]:
        for number in range(100_000):
            taken.append(number)
            yield {"caption": f"{number}"}

    with pytest.raises(ivl.ConfigError, match=r"a row has no column of pictures.*are caption"):
        list(client.describe_many(rows()))  # type: ignore[arg-type]
    assert len(taken) == 1


async def _rows() -> Any:
    yield {"image": png(), "n": 7}
    yield {"image": png(1), "n": 8}


def test_rows_that_come_asynchronously(client: ivl.Client) -> None:
    outcomes = list(client.describe_many(_rows(), key="n", detail=1))
    assert {each.key for each in outcomes} == {"7", "8"}


@pytest.mark.parametrize("images", [["a.png"], iter(["a.png"]), {"k": "a.png"}])
def test_columns_of_what_has_none(client: ivl.Client, images: Any) -> None:
    with pytest.raises(ivl.ConfigError, match="key='n', but the source has no columns"):
        list(client.describe_many(images, key="n"))


def test_pages_of_what_has_none(client: ivl.Client) -> None:
    for images in ("list.txt", ["a.pdf"]):
        with pytest.raises(ivl.ConfigError, match="pages='1-2', but the source is no PDF"):
            list(client.describe_many(images, pages="1-2"))


@pytest.mark.parametrize(
    ("text", "choice", "words"),
    [
        ("image,image\na.png,b.png\n", {}, "2 columns image"),
        ("image,n,n\na.png,1,2\n", {"key": "n"}, "2 columns n"),
        ("", {}, "there are none"),
    ],
)
def test_columns_that_cannot_be_told_apart(text: str, choice: dict[str, str], words: str) -> None:
    """A dict would keep the last of them, and its picture only."""
    with pytest.raises(ivl.ConfigError, match=words):
        csv(text, **choice)
