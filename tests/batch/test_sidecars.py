"""Where texts go, and that none takes another's place."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.batch.outcome import Outcome, key_hash
from internvl_modal.batch.sinks import text_files
from internvl_modal.batch.sinks.text_files import JOURNAL, Sidecars
from internvl_modal.schema.results import Description, Usage
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
        ["texts/é.jpg", "texts/e\u0301.jpg", "texts/É.png", "texts/E\u0301.gif"],
    ],
    ids=["cleaned", "suffixes", "case", "long", "odd", "accents"],
)
def test_every_key_has_a_text_of_its_own(
    client: ivl.Client, pictures: Callable[[int], Path], keys: list[str]
) -> None:
    given = list(zip(keys, sorted(pictures(len(keys)).iterdir()), strict=False))
    outcomes = list(client.describe_many(given[:2], out="texts/", detail=1))
    outcomes += client.describe_many(given, out="texts/", detail=1)  # as if stopped in between
    by_key = {outcome.key: outcome.text for outcome in outcomes}
    names = named()
    seen = {unicodedata.normalize("NFC", name).casefold() for name in names}
    assert len(seen) == len(keys) == len(by_key)
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


def outcome(key: str, text: str | None = "A cat.") -> Outcome:
    if text is None:
        return Outcome(key, "", error=ivl.ImageError("broken", source=key))
    usage = Usage(prompt_tokens=1)
    return Outcome(key, "", Description(text=text, model="m", finish_reason="stop", usage=usage))


def opened(run: str = "run", *, resume: bool = True) -> Sidecars:
    sink = Sidecars(Path("texts"), resume=resume, retry_errors=False)
    sink.open(run)
    return sink


def test_no_text_is_another_prompts_whenever_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each call that changes the disk: the text of the last line is there after a start."""
    calls = kills = 0

    def until(last: int, work: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == last:
                raise KeyboardInterrupt
            return work(*arguments, **named)

        return call

    for number in range(1, 20):
        calls = 0
        sink = opened("one", resume=False)
        sink.write([outcome("cat.jpg", "one")])
        sink.close()
        sink = opened("two")
        with monkeypatch.context() as patched:
            for name in ("unlink", "write", "fsync", "replace"):
                patched.setattr(os, name, until(number, getattr(os, name)))
            try:
                sink.write([outcome("cat.jpg", "two")])
            except KeyboardInterrupt:
                kills += 1
        sink.close()
        sink = opened("two")
        assert texts() == {"cat.txt": "two\n" if sink.claim("cat.jpg") else "one\n"}
        sink.close()
        if calls < number:
            break
    assert kills == calls > 1


def test_names_that_cannot_be() -> None:
    deep = "/".join(["x" * 200] * 25) + "/p.jpg"
    keys = ["a.jpg", "a.txt/b.jpg", "c/d.jpg", deep]
    sink = opened()
    sink.write([outcome(key, key) for key in keys])
    sink.write([outcome("a.txt/e.jpg", "a.txt/e.jpg"), outcome("c.jpg", "c.jpg")])
    sink.close()
    assert len(texts()) == 6
    assert {name: f"{key}\n" for name, key in named().items()} == texts()
    assert named()["a.txt"] == "a.jpg"


def test_texts_that_cannot_be_made_again_stop_nothing() -> None:
    """Folders that became files, and lines of another system."""
    sink = opened()
    sink.write([outcome("a/b.jpg"), outcome("c.jpg")])
    sink.close()
    Path("texts/a/b.txt").unlink()
    Path("texts/a").rmdir()
    Path("texts/a").write_text("mine")
    Path("texts/c.txt").unlink()
    line = {"key": "l", "text": "long", "run": "run", "file": "l" * 300 + ".txt"}
    with Path("texts", JOURNAL).open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    sink = opened()
    assert sink.claim("a/b.jpg")
    sink.write([outcome("d.jpg")])
    sink.close()
    assert texts() == {"c.txt": "A cat.\n", "d.txt": "A cat.\n"}
    sink = opened("other")
    sink.write([outcome("a/b.jpg", "elsewhere")])
    sink.close()
    assert "elsewhere\n" in texts().values()
    sink = opened(resume=False)
    sink.write([outcome("e.jpg", None)])
    sink.close()
    assert not texts()
    assert Path("texts/a").read_text() == "mine"


def test_many_keys_of_one_name_are_not_searched_for_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = 0

    def counted(key: str) -> int:
        nonlocal looked
        looked += 1
        return key_hash(key)

    monkeypatch.setattr(text_files, "key_hash", counted)
    sink = opened()
    keys = ["/" + "🐱" * number + ".jpg" for number in range(1, 301)]
    sink.write([outcome(key, key) for key in keys])
    sink.close()
    assert texts() == {name: f"{key}\n" for name, key in named().items()}
    assert len(texts()) == 300
    assert looked < 300 * 20


def test_errors_alone_are_not_forced_to_the_disk_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sink = opened()
    sink.write([outcome("a.jpg", None)])
    assert not synced
    sink.write([outcome("b.jpg"), outcome("c.jpg", None)])
    assert len(synced) == 1
    sink.close()
    assert len(synced) == 2
