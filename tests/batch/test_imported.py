"""Captions that others have written are taken as done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from pydantic import BaseModel

import internvl_modal as ivl
from tests.batch.conftest import QUICK, lines
from tests.loopback import Loopback, Reply, completion


def written(folder: Path, kind: str) -> Any:
    """Captions of the first three of the folder's pictures, as ``kind`` has them."""
    names = [f"00000{n}.png" for n in range(3)]
    captions = [f"Caption {n}." for n in range(3)]
    frame = pandas.DataFrame({"file_name": names, "caption": captions})
    if kind in ("jsonl", "csv", "parquet"):  # with paths from the table's own folder
        path = folder / f"others.{kind}"
        if kind == "jsonl":
            frame.to_json(path, orient="records", lines=True)
        elif kind == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return path
    if kind == "texts":
        for name, text in zip(names, captions, strict=True):
            (folder / name).with_suffix(".txt").write_text(f"{text}\n")
        return folder
    whole = {str(folder / name): text for name, text in zip(names, captions, strict=True)}
    if kind == "mapping":
        return whole
    if kind == "frame":
        return pandas.DataFrame({"path": list(whole), "text": list(whole.values())})
    return [{"path": key, "description": text} for key, text in whole.items()]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "texts", "mapping", "frame", "rows"])
def test_captions_of_others(loopback: Loopback, pictures: Callable[[int], Path], kind: str) -> None:
    folder = pictures(5)
    given = written(folder, kind)
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        many = client.describe_many(folder, import_=given, out="out.jsonl", detail=1)
        outcomes = {Path(each.key).stem: each for each in many}
        assert many.summary.imported == 3
        assert (many.summary.described, many.summary.done, many.summary.failed) == (2, 5, 0)
        assert list(client.describe_many(folder, out="out.jsonl", detail=1)) == []
    assert len(loopback.chats) == 2
    assert outcomes["000001"].text == "Caption 1."
    assert (outcomes["000001"].imported, outcomes["000001"].attempts) == (True, 0)
    assert not outcomes["000004"].imported
    found = {Path(line["key"]).stem: line for line in lines(Path("out.jsonl"))}
    assert len(found) == 5
    assert (found["000002"]["text"], found["000002"]["imported"]) == ("Caption 2.", True)
    assert "imported" not in found["000003"]


def test_the_lines_of_another_batch(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    folder = pictures(3)
    first = sorted(map(str, folder.iterdir()))
    Path("other.jsonl").write_text(
        json.dumps({"key": first[0], "text": "Theirs.", "model": "theirs", "run": "x"})
        + "\n"
        + json.dumps({"key": first[1], "error": {"type": "ImageError", "message": "no"}})
        + "\n"
    )
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        many = client.describe_many(folder, import_="other.jsonl", ordered=True, detail=1)
        found = {each.key: each for each in many}
    assert found[first[0]].description is not None
    assert found[first[0]].description.model == "theirs"
    assert many.summary.imported == 1


class Cup(BaseModel):
    colour: str
    full: bool


def test_typed_ones_have_to_fit(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    loopback.will(Reply(body=completion('{"colour": "green", "full": false}')))
    folder = pictures(3)
    names = sorted(map(str, folder.iterdir()))
    rows = [
        {"path": names[0], "colour": "red", "full": True},
        {"path": names[1], "colour": "red", "full": "perhaps"},
    ]
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        many = client.describe_many(folder, schema=Cup, import_=rows, out="o.jsonl", detail=1)
        values = {each.key: each.value for each in many}
    assert many.summary.imported == 1
    assert values[names[0]] == Cup(colour="red", full=True)
    assert values[names[1]] == Cup(colour="green", full=False)
    assert {line["colour"] for line in lines(Path("o.jsonl"))} == {"red", "green"}


def test_several_prompts_need_all_their_answers(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    folder = pictures(2)
    names = sorted(map(str, folder.iterdir()))
    rows = [{"path": names[0], "a": "A.", "b": "B."}, {"path": names[1], "a": "A."}]
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        many = client.describe_many(folder, prompts={"a": "?", "b": "!"}, import_=rows, detail=1)
        found = {each.key: each for each in many}
    assert found[names[0]].text == "A.\n\nB."
    assert found[names[1]].attempts == 2


def test_nothing_to_import_is_an_error(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    unnamed = [{"path": "a.png", "Words": "A cat."}, {"path": "b.png", "text": " "}]
    for given in ({}, "missing.jsonl", [], ["a.png"], unnamed):
        with (
            ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client,
            pytest.raises(ivl.ConfigError),
        ):
            list(client.describe_many(pictures(1), import_=given, detail=1))
    assert loopback.chats == []
