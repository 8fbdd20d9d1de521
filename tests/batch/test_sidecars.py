"""Where texts go, and that none takes another's place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.batch.sidecars import JOURNAL
from tests.batch.conftest import Fast, lines


@pytest.fixture
def client(fast: Callable[..., Fast]) -> Iterator[ivl.Client]:
    with ivl.Client(base_url=fast().url) as made:
        yield made


def texts(folder: Path | str = "texts") -> dict[str, str]:
    """What each file holds, by its name."""
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}


def named(folder: Path | str = "texts") -> dict[str, str]:
    """Keys by the name of their text, in the last run."""
    return {line["file"]: line["key"] for line in lines(Path(folder) / JOURNAL) if "text" in line}


def test_beside_the_pictures_or_in_a_folder(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    folder = pictures(3)
    (folder / "000001.gif").write_bytes((folder / "000001.png").read_bytes())
    list(client.describe_many(folder, out=folder, detail=1))
    assert texts(folder)["000000.txt"].startswith("It is ")
    assert {path.name for path in folder.glob("000001*.txt")} in (
        {"000001.txt", "000001.gif.txt"},
        {"000001.txt", "000001.png.txt"},
    )
    given = [("a/b.jpg", folder / "000000.png"), ("../../c.jpg", folder / "000001.png"),
             ("https://x.org/d.jpg?e=1", folder / "000002.png")]  # fmt: skip
    list(client.describe_many(given, out="texts/", detail=1))
    assert texts().keys() == {"a/b.txt", "c.txt", "https_/x.org/d.txt"}


@pytest.mark.parametrize(
    "keys",
    [
        ["/🐱.jpg", "/🐶.jpg", "/🐭.jpg", "/_.jpg"],
        ["a.jpg", "a.png", "a.png.jpg", "a.gif"],
        ["IMG.jpg", "img.png", "Img.PNG", "img.gif"],
        ["a" * 250 + ".jpg", "a" * 250 + ".png", "b" * 300 + "/" + "é" * 200, "x." * 150],
        ["", "/", "..", "\0", "\ud800.jpg"],
    ],
    ids=["cleaned", "suffixes", "case", "long", "odd"],
)
def test_every_key_has_a_text_of_its_own(
    client: ivl.Client, pictures: Callable[[int], Path], keys: list[str]
) -> None:
    given = list(zip(keys, sorted(pictures(len(keys)).iterdir()), strict=False))
    outcomes = list(client.describe_many(given[:2], out="texts/", detail=1))
    outcomes += client.describe_many(given, out="texts/", detail=1)  # as if stopped in between
    by_key = {outcome.key: outcome.text for outcome in outcomes}
    names = named()
    assert len({name.casefold() for name in names}) == len(keys) == len(by_key)
    assert texts() == {name: f"{by_key[key]}\n" for name, key in names.items()}
    list(client.describe_many(given, "Other?", out="texts/", ordered=True, detail=1))
    assert named() == names


def test_a_text_of_somebody_else_is_left_alone(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    folder = pictures(1)
    (folder / "000000.txt").write_text("mine")
    for prompt in ("One?", "Two?"):
        list(client.describe_many(folder, prompt, out=folder, detail=1))
    assert texts(folder).keys() == {"000000.txt", "000000.png.txt"}
    assert texts(folder)["000000.txt"] == "mine"
    list(client.describe_many(folder, out=folder, resume=False, detail=1))
    assert texts(folder).keys() == {"000000.txt", "000000.png.txt"}
    assert texts(folder)["000000.txt"] == "mine"


def test_texts_that_a_power_cut_took_come_back(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    folder = pictures(4)
    for prompt in ("One?", "Two?"):
        list(client.describe_many(folder, prompt, out="texts/", detail=1))
    before = texts()
    gone, empty, edited, _ = (Path("texts", name) for name in before)
    gone.unlink()
    empty.write_text("")
    edited.write_text("mended by hand")
    assert not list(client.describe_many(folder, "Two?", out="texts/", detail=1))
    assert edited.read_text() == "mended by hand"
    edited.write_text(before[edited.relative_to("texts").as_posix()])
    assert texts() == before


def test_a_journal_that_leads_out_of_the_folder(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    Path("texts").mkdir()
    line = {"key": "a", "text": "evil", "run": "r", "file": "../evil.txt"}
    Path("texts", JOURNAL).write_text(json.dumps(line) + "\n")
    list(client.describe_many(pictures(1), out="texts/", detail=1))
    assert not Path("evil.txt").exists()
