"""Damage and oddities beside those that were reported: each input is taken, or named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as arrow
import pytest
from pyarrow import parquet

import internvl_modal as ivl
from internvl_modal.images import prepare
from tests.batch.sources import found, items, outcomes_of, png

LISTS: list[tuple[str, bytes, dict[str, Any]]] = [
    ("zeros.txt", b"a.png\nb.png\n" + bytes(40),
     {"a.png": "a.png", "b.png": "b.png", "zeros.txt#2": "line 3 is no UTF-8 text"}),
    ("zeros.csv", b"image,key\na.png,1\n" + bytes(40),
     {"1": "a.png", "zeros.csv#1": "line 3 is no UTF-8 text"}),
    ("inside.csv", b"image,key\na\0.png,1\nb.png,2\n",
     {"inside.csv#0": "line 2 is no UTF-8 text", "2": "b.png"}),
    ("zeros.jsonl", b'{"image": "a.png"}\n' + bytes(40),
     {"a.png": "a.png", "zeros.jsonl#1": "line 2 is no JSON object"}),
    ("cut.jsonl", b'{"image": "a.png"}\n{"image": "b.p',
     {"a.png": "a.png", "cut.jsonl#1": "line 2 is no JSON object"}),
    ("empty.jsonl", b'{"image": "a.png"}\n{"image": {}}\n{"image": 5}\n',
     {"a.png": "a.png", "empty.jsonl#1": [], "empty.jsonl#2": 5}),
    ("short.csv", b"key,image\n1\n2,b.png,x,y\n,c.png\n",
     {"short.csv#0": "has no column of pictures", "2": "b.png", "c.png": "c.png"}),
    ("old mac.csv", b"image,key\ra.png,1\rb.png,2\r", {"1": "a.png", "2": "b.png"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), LISTS, ids=[each[0] for each in LISTS])
def test_lists(name: str, content: bytes, expected: dict[str, Any]) -> None:
    Path(name).write_bytes(content)
    assert found(name) == expected


def test_zeros_only_are_no_list() -> None:
    Path("a.txt").write_bytes(bytes(40))
    with pytest.raises(ivl.ConfigError, match=r"a\.txt: line 1 is no UTF-8 text"):
        items("a.txt")


@pytest.mark.parametrize("group", [0, 1])
def test_one_of_two_row_groups(group: int) -> None:
    rows = [{"image": {"bytes": png(n), "path": "x.png"}} for n in range(10)]
    parquet.write_table(arrow.Table.from_pylist(rows), "a.parquet", row_group_size=5)
    column = parquet.ParquetFile("a.parquet").metadata.row_group(group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(Path("a.parquet").read_bytes())
    data[start : start + 20] = b"\xff" * 20
    Path("a.parquet").write_bytes(data)
    taken = found("a.parquet")
    first = 5 * group
    assert "cannot be read: " in taken.pop(f"a.parquet#{first}-{first + 4}")
    left = [n for n in range(10) if not first <= n < first + 5]
    assert taken == {f"a.parquet#{n}": png(n) for n in left}


def test_a_sample_of_several_pictures() -> None:
    """Each picture of a WebDataset's sample is one, whatever its column is called."""
    names = ["s1.jpg", "s1.mask.png", "s1.json", "s2.0.jpg", "s2.1.jpg"]
    with tarfile.open("a.tar", "w") as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(data := png(number))
            archive.addfile(member, io.BytesIO(data))
    wanted = {f"a.tar/{name}": png(n) for n, name in enumerate(names) if "json" not in name}
    assert found("a.tar") == wanted


def test_lists_of_arrow_with_nothing_in_them(client: ivl.Client) -> None:
    cells = [[png(0), png(1)], [], None, [None], [png(2), None]]
    table = arrow.table({"images": cells, "key": list("abcde")})
    assert {key: len(value) for key, value in found(table).items()} == {
        "a": 2, "b": 0, "c": 0, "d": 1, "e": 2,
    }  # fmt: skip
    outcomes, error = outcomes_of(client, table)
    assert error is None
    assert {each.key: each.ok for each in outcomes} == {key: key == "a" for key in "abcde"}


def test_pictures_that_a_data_set_lacks(client: ivl.Client) -> None:
    cells = [{"bytes": png(), "path": None}, None, {"bytes": None, "path": None}]
    made = datasets.Dataset.from_dict({"image": cells}).cast_column("image", datasets.Image())
    for given in (made, made.to_iterable_dataset()):
        outcomes, error = outcomes_of(client, given, out="out.jsonl", resume=False)
        assert error is None
        assert sorted((each.key[:2], each.ok) for each in outcomes) == [
            ("#0", True), ("#1", False), ("#2", False)
        ]  # fmt: skip


def test_pipes_and_devices_among_pictures() -> None:
    for name in ("/dev/zero", "/dev/null"):
        with pytest.raises(ivl.ImageError, match="not a regular file"):
            prepare(name)


def test_a_whole_number_with_a_point_is_the_key_of_before() -> None:
    """0.1.0 called it 1.0."""
    Path("a.jsonl").write_text('{"image": "a.png", "key": 1.0}\n')
    (each,) = items("a.jsonl")
    assert (each.key, each.former) == ("1", "1.0")
