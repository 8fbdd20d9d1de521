"""What names many pictures, and what their keys are."""

from __future__ import annotations

import io
import json
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

import internvl_modal as ivl
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.batch.sources.inputs import read
from internvl_modal.batch.sources.keys import Item, item
from internvl_modal.images import prepare

PICTURE = b"\x89PNG"


def items(images: Any, column: str | None = None) -> list[Item]:
    return [item(given, index) for index, given in enumerate(read(images, Choice(column)))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.JPG", "notes.txt", ".hidden.png", "deep/c.webp", "deep/.d/e.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE)
    return tmp_path / "photos"


def test_folders_and_globs(folder: Path) -> None:
    everything = {f"{folder}/{name}" for name in ("a.png", "b.JPG", "deep/c.webp")}
    assert {each.key for each in items(folder)} == everything
    assert {each.key for each in items("photos")} == {
        "photos/a.png",
        "photos/b.JPG",
        "photos/deep/c.webp",
    }
    assert {each.key for each in items("photos/*")} == {"photos/a.png", "photos/b.JPG"}
    assert {each.key for each in items("photos/**/*.webp")} == {"photos/deep/c.webp"}
    assert items(folder / "a.png") == [Item(f"{folder}/a.png", f"{folder}/a.png")]
    assert items("https://x.org/a.jpg")[0].key == "https://x.org/a.jpg"
    assert items("data:image/png;base64,AA==")[0].key == "#0"


def test_a_folder_of_any_size_is_not_listed_first(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.png").write_bytes(PICTURE)
    found = read(tmp_path, Choice())
    assert isinstance(found, Iterator)
    next(found)
    (tmp_path / "late").mkdir()
    assert sum(1 for _ in found) == 49


def test_a_folder_that_cannot_be_listed(
    tmp_path: Path, fast: Callable[..., Any], pictures: Callable[[int], Path]
) -> None:
    picture = next(pictures(1).iterdir()).read_bytes()
    for name in "abc":
        (tmp_path / "deep" / name).mkdir(parents=True)
        (tmp_path / "deep" / name / "1.png").write_bytes(picture)
    found = read(tmp_path / "deep", Choice())
    given = [next(found)]
    shutil.rmtree(tmp_path / "deep" / "b")  # as good as one without permission
    given += found
    with ivl.Client(base_url=fast().url) as client:
        outcomes = list(client.describe_many(given, detail=1, ordered=True))
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert outcomes[1].key == str(tmp_path / "deep" / "b")
    assert isinstance(outcomes[1].error, ivl.ImageError)
    assert "cannot be read: No such file" in str(outcomes[1].error)


def test_the_folder_itself_cannot_be_listed(folder: Path) -> None:
    found = read(folder, Choice())
    shutil.rmtree(folder)
    with pytest.raises(ivl.ConfigError, match=rf"{folder} cannot be read: No such file"):
        list(found)


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.jsonl", "shard.tar"])
def test_a_manifest_that_cannot_be_read(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:  # what even root cannot open
        made.bind(name)
        with pytest.raises(ivl.ConfigError, match=rf"{name} cannot be read: No such device"):
            items(name)


def test_endings_in_any_case(folder: Path) -> None:
    (folder / "LIST.CSV").write_text("path\na.png\n")
    assert [each.key for each in items("photos/*.CSV")] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "\ufeffa.png\n\n  deep/c.webp \nhttps://x.org/d.jpg\n"),
        ("list.csv", "n,path\n1,a.png\n2,deep/c.webp\n3,https://x.org/d.jpg\n"),
        (
            "list.jsonl",
            '{"image": "a.png"}\n\n{"image": "deep/c.webp"}\n{"image": "https://x.org/d.jpg"}\n',
        ),
    ],
)
def test_manifests(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert items(folder / name) == [
        Item("a.png", str(folder / "a.png")),
        Item("deep/c.webp", str(folder / "deep/c.webp")),
        Item("https://x.org/d.jpg", "https://x.org/d.jpg"),
    ]


def test_a_column_and_keys_of_ones_own(folder: Path) -> None:
    (folder / "list.csv").write_text("key,thumb,image\none,a.png,x\ntwo,b.JPG,y\n")
    assert items(folder / "list.csv", "thumb") == [
        Item("one", str(folder / "a.png")),
        Item("two", str(folder / "b.JPG")),
    ]
    with pytest.raises(ivl.ConfigError, match=r"no column photo.*key, thumb, image"):
        items(folder / "list.csv", "photo")


@pytest.mark.parametrize("name", ["Image_Path", "image_url", "URL", "File"])
def test_names_of_columns(name: str) -> None:
    Path("list.csv").write_text(f"n,{name}\n1,nope.png\n2,\n")
    assert items("list.csv") == [Item("nope.png", "nope.png"), Item("list.csv#1", [])]  # type: ignore[arg-type]


def test_a_bad_line_is_that_lines_failure(folder: Path) -> None:
    Path("list.jsonl").write_text('{"image": "a.png"}\n{"image\n[3]\n{"image": null}\n')
    found = items("list.jsonl")
    assert [each.key for each in found] == ["a.png", *(f"list.jsonl#{n}" for n in (1, 2, 3))]
    for number, each in enumerate(found[1:3], 2):
        with pytest.raises(ivl.ImageError, match=f"#.*line {number} is no JSON object"):
            prepare(each.source)


def test_a_folder_that_is_linked(folder: Path) -> None:
    Path("more").mkdir()
    Path("more/d.png").write_bytes(PICTURE)
    (folder / "more").symlink_to(Path("more").resolve())
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "itself").symlink_to("itself")
    found = sorted(each.key for each in items("./photos/"))
    assert found == [f"photos/{name}" for name in ("a.png", "b.JPG", "deep/c.webp", "more/d.png")]
    assert "photos/more/d.png" in {each.key for each in items("./photos/**/*.png")}


def test_parquet_of_paths_and_of_pictures(folder: Path) -> None:
    path = folder / "list.parquet"
    parquet.write_table(arrow.table({"n": list(range(200)), "url": ["a.png"] * 200}), path)
    assert items(path) == [Item("a.png", str(folder / "a.png"))] * 200
    pictures = [{"bytes": PICTURE, "path": "x.png"}, {"bytes": PICTURE, "path": None}]
    parquet.write_table(arrow.table({"image": pictures}), path)
    keys = [(each.key, each.source, each.former) for each in items(path)]
    assert keys == [(f"{path}#0", PICTURE, "x.png"), (f"{path}#1", PICTURE, None)]
    parquet.write_table(arrow.table({"image": [PICTURE], "key": ["k"]}), path)
    assert items(path) == [Item("k", PICTURE)]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_webdataset_shards(folder: Path, suffix: str) -> None:
    for shard in range(2):
        with tarfile.open(folder / f"s{shard}{suffix}", f"w:{suffix[5:]}") as archive:
            for name in ("0.jpg", "0.json", "1.png"):
                member = tarfile.TarInfo(name)
                member.size = len(PICTURE)
                archive.addfile(member, io.BytesIO(PICTURE))
    one = folder / f"s0{suffix}"
    assert items(one) == [Item(f"{one}/0.jpg", PICTURE), Item(f"{one}/1.png", PICTURE)]
    assert len({each.key for each in items(f"{folder}/s*{suffix}")}) == 4
    one.write_bytes(one.read_bytes()[:700] if suffix == ".tar" else b"nothing")
    with pytest.raises(ivl.ConfigError, match="damaged"):
        items(one)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"\x89PNG", "UTF-8"),
        ("x.jsonl", "{", "line 1 of"),
        ("x.jsonl", "3", "no JSON object"),
        ("x.jsonl", '{"caption": 3}', "no column of pictures.*caption"),
        ("x.csv", "a,b\n1,2\n", "no column of pictures.*a, b"),
        ("x.parquet", "nothing", "Parquet|parquet"),
    ],
)
def test_a_bad_manifest_is_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ivl.ConfigError, match=message) as caught:
        items(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("a.png", "a.png"),
        (Path("b/c.png"), str(Path("b/c.png"))),
        (np.str_("a.png"), "a.png"),
        (("k", b"1"), "k"),
        ((3, b"1"), "3"),
        (b"1", "#7"),
        ("data:image/png;base64,AA==", "#7"),
        (None, "#7"),
    ],
)
def test_keys(given: Any, key: str) -> None:
    assert item(given, 7).key == key
    assert type(item(given, 7).key) is str


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3), (8, 9, 4), (8, 9, 1)])
def test_an_array_that_is_one_picture_is_not_taken_for_its_rows(shape: tuple[int, ...]) -> None:
    with pytest.raises(ivl.ConfigError, match="is one picture") as caught:
        read(np.zeros(shape, "uint8"), Choice())
    assert "[array]" in str(caught.value)
    many = np.zeros((3, *shape), "uint8")
    assert [each.key for each in items(many)] == ["#0", "#1", "#2"]


def test_names_of_pictures() -> None:
    assert all(map(is_picture, ["a.jpg", "a.b.JPEG", "x/y.heic", "z.tif", ".png"]))
    assert not any(map(is_picture, ["a", "a.txt", "jpg", "a.jpg.part", "a.json"]))


def test_a_manifest_is_described(fast: Callable[..., Any], pictures: Callable[[int], Path]) -> None:
    folder = pictures(5)
    rows = [{"image": f"{number:06}.png"} for number in range(5)]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with ivl.Client(base_url=fast().url) as client:
        outcomes = list(client.describe_many(folder / "list.jsonl", detail=1, ordered=True))
    assert [outcome.key for outcome in outcomes] == [row["image"] for row in rows]
    assert all(outcome.ok for outcome in outcomes)
