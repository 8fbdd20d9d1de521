"""CSV, imagefolder, WebDataset and data sets of Hugging Face, read by the packages that read them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.batch.sinks import shards
from internvl_modal.protocol.endpoint import Endpoint
from tests.batch.conftest import QUICK, Fast, lines
from tests.batch.sources import png
from tests.loopback import Loopback, Reply, completion

JOURNAL = ".{}.journal.jsonl"


@pytest.fixture
def client(fast: Callable[..., Fast]) -> Iterator[ivl.Client]:
    with ivl.Client(base_url=fast().url, retry=QUICK) as made:
        yield made


def table(name: str = "captions.csv") -> list[dict[str, str]]:
    with Path(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv(client: ivl.Client, pictures: Callable[[int], Path]) -> None:
    import pandas

    folder = pictures(12)
    (folder / "broken.jpg").write_bytes(b"")
    many = client.describe_many(folder, out="captions.csv", limit=5, detail=1)
    assert len(list(many)) == 5
    assert len(table()) == 5
    before = Path("captions.csv").stat().st_mtime_ns
    assert list(client.describe_many(folder, out="captions.csv", limit=5, detail=1)) == []
    assert Path("captions.csv").stat().st_mtime_ns == before
    assert len(list(client.describe_many(folder, out="captions.csv", detail=1))) == 8
    rows = table()
    assert sum(bool(row["text"]) for row in rows) == 12
    assert [row["error_type"] for row in rows if row["error_type"]] == ["ImageError"]
    assert len({row["key"] for row in rows}) == 13
    frame = pandas.read_csv("captions.csv")
    assert frame["completion_tokens"].sum() == 36


def test_csv_of_odd_texts(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    text = 'a "quote", a\nline; \u732b\r\n'
    value = json.dumps({"words": ["a", "b"], "note": text, "good": True})
    loopback.will(Reply(body=completion(value)))
    schema = {"type": "object", "properties": {"note": {"type": "string"}}}
    folder = pictures(1)
    next(folder.iterdir()).rename(folder / os.fsdecode(b"caf\xe9.png"))
    with ivl.Client(base_url=loopback.url, model="m") as client:
        list(client.describe_many(folder, schema=schema, out="captions.csv", detail=1))
    (row,) = table()
    assert row["note"] == text
    assert json.loads(row["words"]) == ["a", "b"]
    assert row["good"] == "true"
    assert row["key"].endswith("caf\\udce9.png")


@pytest.mark.parametrize("name", ["captions.csv", "photos/metadata.jsonl", "captions.dataset"])
def test_what_others_have_made_is_refused(
    client: ivl.Client, pictures: Callable[[int], Path], name: str
) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("precious")
    with pytest.raises(ivl.ConfigError, match="was not made by a batch"):
        list(client.describe_many(pictures(1), out=name, detail=1))
    assert Path(name).read_text() == "precious"


def test_an_image_folder(client: ivl.Client, pictures: Callable[[int], Path]) -> None:
    import datasets

    folder = pictures(6)
    (folder / "sub").mkdir()
    (folder / "000003.png").rename(folder / "sub" / "x.png")
    (folder / "000004.png").write_bytes(b"")
    out = folder / "metadata.jsonl"
    prompts = {"short": "Short?", "long": "Long?"}
    outcomes = list(client.describe_many(folder, out=out, prompts=prompts, detail=1))
    assert len(outcomes) == 6
    assert list(client.describe_many(folder, out=out, prompts=prompts, detail=1)) == []
    rows = {row["file_name"]: row for row in lines(out)}
    assert rows.keys() == {"000000.png", "000001.png", "000002.png", "000005.png", "sub/x.png"}
    (folder / "000004.png").unlink()
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    assert len(loaded) == 5
    assert set(loaded["short"]) == {row["short"] for row in rows.values()}
    assert loaded[0]["image"].size == (8, 8)
    with pytest.raises(ivl.ConfigError, match=r"is not a file in"):
        list(client.describe_many([("elsewhere", png())], out=out, detail=1))


def test_metadata_that_an_earlier_version_wrote_stays_what_it_is(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    folder = pictures(2)
    Path("metadata.jsonl").write_text('{"key": "a", "text": "A.", "run": "x"}\n')
    list(client.describe_many(folder, out="metadata.jsonl", detail=1))
    assert lines(Path("metadata.jsonl"))[0]["key"] == "a"
    assert len(lines(Path("metadata.jsonl"))) == 3


def test_a_data_set_on_the_disk(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    import datasets

    value = json.dumps({"colour": "red", "count": 3, "words": ["a"], "more": {"x": 1}})
    loopback.will(Reply(body=completion(value)))
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "blue"]},
            "count": {"type": "integer"},
            "words": {"type": "array", "items": {"type": "string"}},
            "more": {"type": "object"},
        },
    }
    folder = pictures(5)
    (folder / "broken.jpg").write_bytes(b"")
    how: dict[str, Any] = {"schema": schema, "out": "captions.dataset", "detail": 1}
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        list(client.describe_many(folder, "Look {closely}.", limit=3, **how))
        first = len(datasets.load_from_disk("captions.dataset"))
        list(client.describe_many(folder, "Look {closely}.", **how))
        asked = len(loopback.chats)
        assert list(client.describe_many(folder, "Look {closely}.", **how)) == []
        assert len(loopback.chats) == asked
    assert first in (2, 3)
    loaded = datasets.load_from_disk("captions.dataset")
    assert len(loaded) == 5
    assert loaded[0]["image"].size == (8, 8)
    assert (set(loaded["colour"]), set(loaded["count"])) == ({"red"}, {3})
    assert loaded[0]["words"] == ["a"]
    assert json.loads(loaded[0]["more"]) == {"x": 1}
    page = Path("captions.dataset/README.md").read_text()
    for words in ("`internvl2_5-78b`", "revision", "Look {closely}.", "| detail | `1` |", "flags",
                  "5 pictures", "1 more failed"):  # fmt: skip
        assert words in page, words
    assert not [each for each in Path().iterdir() if each.name.endswith((".new", ".old"))]


def test_the_card_names_the_revision(server: Fast, pictures: Callable[[int], Path]) -> None:
    class Known:
        name = "known"

        def start(self) -> Endpoint:
            return Endpoint(server.url, "m", revision="4f1c2e")

        def stop(self) -> None:
            """Nothing."""

    with ivl.Client(Known()) as client:
        list(client.describe_many(pictures(1), out="captions.dataset", detail=1))
    assert "| revision | `4f1c2e` |" in Path("captions.dataset/README.md").read_text()


def members(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_shards(
    client: ivl.Client, pictures: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 4)
    folder = pictures(10)
    Image.new("RGB", (9, 9)).save(folder / "a.b.jpg")
    (folder / "broken.jpg").write_bytes(b"")
    out = "shards/set-%04d.tar"
    assert len(list(client.describe_many(folder, out=out, limit=6, detail=1))) == 6
    list(client.describe_many(folder, out=out, detail=1))
    assert list(client.describe_many(folder, out=out, detail=1)) == []
    found = sorted(Path("shards").glob("set-*.tar"))
    assert found[0].name == "set-0000.tar"
    names = [name for each in found for name in members(each)]
    assert len(names) == len(set(names)) == 33
    assert {name.partition(".")[2] for name in names} == {"jpg", "png", "txt", "json"}
    assert not list(Path("shards").glob(".*.open"))
    written = lines(Path("shards") / JOURNAL.format("set-shards.tar"))
    assert len(written) == 12
    # Its own reader takes the pictures of such shards.
    again = client.describe_many("shards/*.tar", detail=1)
    assert all(outcome.ok for outcome in again)
    assert again.summary.described == 11
    list(client.describe_many(folder, out=out, resume=False, limit=1, detail=1))
    assert len(list(Path("shards").glob("set-*.tar"))) == 1


def test_shards_of_pictures_in_memory(client: ivl.Client) -> None:
    given = {
        "bytes": png(1),
        "pil": Image.new("RGBA", (7, 7)),
        "array": np.zeros((6, 6, 3), np.uint8),
        "two": [png(2), png(3)],
    }
    list(client.describe_many(given, out="set-%d.tar", ordered=True, detail=1))
    names = members(Path("set-0.tar"))
    assert len(names) == 13
    with tarfile.open("set-0.tar") as tar:
        for name in names:
            file = tar.extractfile(name)
            assert file is not None
            if name.endswith(".png"):
                assert Image.open(file).size[0] in (6, 7, 8)
    assert sum(name.endswith(".1.png") for name in names) == 1


def test_a_tar_without_a_number_says_how(client: ivl.Client) -> None:
    with pytest.raises(ivl.ConfigError, match=r"-%06d\.tar"):
        client.describe_many([], out="set.tar").__next__()


WORK = """
import sys, internvl_modal as ivl
client = ivl.Client(base_url=sys.argv[1], retry=ivl.Retry(attempts=3, initial=0.01))
for outcome in client.describe_many("pictures", out=sys.argv[2], detail=1, concurrency=4):
    print(outcome.key, flush=True)
"""


@pytest.mark.parametrize("out", ["captions.csv", "set-%03d.tar", "pictures/metadata.jsonl"])
def test_killed_again_and_again(
    fast: Callable[..., Fast], pictures: Callable[[int], Path], out: str
) -> None:
    """After each kill what is there can be read, and at the end every key is there once."""
    pictures(60)
    url = fast("--latency", "0.02").url
    for kills in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WORK, url, out], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5 + 3 * kills):
            process.stdout.readline()
        time.sleep(0.01 * kills)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    subprocess.run([sys.executable, "-c", WORK, url, out], check=True, stdout=subprocess.DEVNULL)
    if out.endswith(".csv"):
        keys = [row["key"] for row in table()]
    elif out.endswith(".jsonl"):
        keys = [row["file_name"] for row in lines(Path(out))]
    else:
        keys = []
        for each in sorted(Path().glob("set-*.tar")):
            with tarfile.open(each) as tar:
                for name in tar.getnames():
                    if name.endswith(".json"):
                        file = tar.extractfile(name)
                        assert file is not None
                        keys.append(json.load(file)["key"])
        assert not list(Path().glob(".set-*.open"))
    assert len(keys) == len(set(keys)) == 60


def test_the_status_of_a_table(client: ivl.Client, pictures: Callable[[int], Path]) -> None:
    list(client.describe_many(pictures(3), out="captions.csv", detail=1))
    done = subprocess.run(
        [sys.executable, "-m", "internvl_modal", "batch", "--status", "captions.csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)["described"] == 3
