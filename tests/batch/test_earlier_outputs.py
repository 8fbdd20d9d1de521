"""What 0.1.0 wrote is continued: its runs and its keys are recognised."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pybase64
import pytest
from PIL import Image
from pyarrow import parquet

import internvl_modal as ivl
from internvl_modal.batch.outcome import fingerprint
from internvl_modal.batch.signed_urls import without_signature
from internvl_modal.batch.sources.keys import item
from internvl_modal.schema.options import DescribeOptions
from tests.batch.conftest import QUICK, Fast, lines
from tests.loopback import Loopback, Reply, completion

RUN = "d6a1b1a62990"
"""The default prompt and options for this model, as 0.1.0 called them."""
SIGNED = "https://x.org/d.jpg?id=1&X-Amz-Signature=abc&X-Amz-Date=1"
OLD: list[dict[str, Any]] = [
    {"key": key, "text": "A cat.", "model": "internvl2_5-78b", "finish_reason": "stop",
     "usage": {"prompt_tokens": 5000, "completion_tokens": 3}, "attempts": 1, "seconds": 0.063,
     "run": RUN, "file": file}
    for key, file in [("photos/a.png", "photos/a.txt"), ("scan.001", "scan.txt"),
                      (SIGNED, "https_/x.org/d.txt"), ("#4-38175d172106", "_4-38175d172106.txt")]
]  # fmt: skip
FAILED = {
    "key": "broken",
    "error": {"type": "ImageError", "message": "bytes (0 bytes): empty"},
    "attempts": 0,
    "seconds": 0.013,
    "run": RUN,
}


def png(red: int) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(held, "PNG")
    return held.getvalue()


GIVEN = [
    ("photos/a.png", png(1)),
    ("scan.001", png(2)),
    (SIGNED.replace("abc", "another"), png(3)),
    ("broken", b""),
    png(4),
]


def left_by_the_old(out: str) -> None:
    documents = [*OLD, FAILED]
    if out.endswith(".parquet"):
        texts = ["key", "text", "model", "finish_reason", "error_type", "error_message", "run"]
        counts = ["prompt_tokens", "completion_tokens", "attempts"]
        schema = arrow.schema(
            [(name, arrow.string()) for name in texts]
            + [(name, arrow.int64()) for name in counts]
            + [("seconds", arrow.float64()), ("warnings", arrow.list_(arrow.string()))]
        )
        rows = [{**each, "error_type": each.get("error", {}).get("type")} for each in documents]
        Path(out).mkdir()
        table = arrow.Table.from_pylist(rows, schema=schema)
        parquet.write_table(table, f"{out}/part-00000.parquet")
        return
    for each in documents:
        if out.endswith("/") and "file" in each:
            file = Path(out, each["file"])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("A cat.\n")
        journal = Path(f"{out}.internvl-modal.jsonl" if out.endswith("/") else out)
        with journal.open("a") as written:
            written.write(json.dumps(each) + "\n")


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet", "texts/"])
def test_it_goes_on_where_the_old_version_stopped(loopback: Loopback, out: str) -> None:
    left_by_the_old(out)
    loopback.will(Reply(body=completion("A dog.")))
    with ivl.Client(base_url=loopback.url, model="m") as client:
        assert not list(client.describe_many(GIVEN, out=out))
        assert not any(heard.body for heard in loopback.heard)
        again = list(client.describe_many([*GIVEN, ("new", png(5))], out=out, retry_errors=True))
        assert [outcome.key for outcome in again] in (["broken", "new"], ["new", "broken"])
        list(client.describe_many(GIVEN[1:2], "Other?", out=out))
    if out == "texts/":
        assert Path("texts/scan.txt").read_text() == "A dog.\n"
        assert not Path("texts/scan.001.txt").exists()


@pytest.mark.parametrize(
    ("options", "run"),
    [
        (DescribeOptions(), RUN),
        (DescribeOptions(timeout=3, max_pixels=5, allow_private_urls=True), RUN),
        (DescribeOptions(grounding=True), None),
    ],
)
def test_a_run_keeps_its_name(options: DescribeOptions, run: str | None) -> None:
    named = fingerprint("Describe this image in detail.", options, "m")
    assert (named == RUN) == (run == RUN)
    other = DescribeOptions(detail="low", stop=("x",), seed=3)
    assert fingerprint("What?", other, "m") == "be786d0981dc"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("photos/a.png?sig=1", "photos/a.png?sig=1"),
        ("https://x.org/a.png", "https://x.org/a.png"),
        ("https://x.org/a.png?id=1&w=2#f", "https://x.org/a.png?id=1&w=2#f"),
        ("https://u:p@x.org/a.png", "https://x.org/a.png"),
        (SIGNED, "https://x.org/d.jpg?id=1"),
        ("https://b.s3.amazonaws.com/a.png?X-Amz-Algorithm=A&X-Amz-Credential=C&X-Amz-Date=D"
         "&X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Security-Token=T&X-Amz-Signature=S",
         "https://b.s3.amazonaws.com/a.png"),
        ("https://s.org/a?AWSAccessKeyId=A&Signature=S%2B&Expires=1", "https://s.org/a"),
        ("https://d.cloudfront.net/a?v=2&Expires=1&Signature=S&Key-Pair-Id=K&Policy=P",
         "https://d.cloudfront.net/a?v=2"),
        ("https://a.blob.core.windows.net/c/a.png?sv=1&st=2&se=3&sr=b&sp=r&sig=S%3D",
         "https://a.blob.core.windows.net/c/a.png"),
        ("https://storage.googleapis.com/b/a?X-Goog-Algorithm=A&X-Goog-Credential=C"
         "&X-Goog-Date=D&X-Goog-Expires=9&X-Goog-SignedHeaders=host&X-Goog-Signature=S",
         "https://storage.googleapis.com/b/a"),
        ("https://cdn.discordapp.com/a.png?ex=1&is=2&hm=" + "f" * 64,
         "https://cdn.discordapp.com/a.png"),
        ("https://oss.org/a.png?x-oss-process=image/resize,w_9&x-oss-signature=S",
         "https://oss.org/a.png?x-oss-process=image/resize,w_9"),
        ("https://x.org/a?sign=leo", "https://x.org/a?sign=leo"),
        ("https://x.org/a?expires=never&sp=1", "https://x.org/a?expires=never&sp=1"),
    ],
)  # fmt: skip
def test_keys_lose_what_signs_a_url(url: str, key: str) -> None:
    assert without_signature(url) == key
    assert without_signature(key) == key
    assert item(url, 0).key == item((url, b""), 0).key == key
    assert item(url, 0).source == url


def test_what_may_tell_pictures_apart_is_kept_as_a_digest() -> None:
    keys = [without_signature(f"https://x.org/a?access_token={token}") for token in ("one", "two")]
    assert len(set(keys)) == 2
    assert not any("one" in key or "two" in key for key in keys)
    assert [without_signature(key) for key in keys] == keys


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet", "texts/"])
def test_no_signature_is_on_the_disk_and_a_new_one_asks_nothing_again(
    server: Fast, pictures: Callable[[int], Path], out: str
) -> None:
    picture = next(pictures(1).iterdir()).read_bytes()
    with ivl.Client(base_url=server.url, retry=QUICK) as client:
        for secret in ("SECRETone", "SECRETtwo"):
            signed = f"https://x.org/a.png?id=7&X-Amz-Signature={secret}&X-Amz-Date={secret}"
            failing = f"http://127.0.0.1:9/b.png?sig={secret}"
            list(client.describe_many([(signed, picture), failing], out=out, detail=1))
    assert len(server.report()["log"]) == 1
    files = [path for path in Path().rglob("*") if path.is_file() and "pictures" not in path.parts]
    assert files
    assert not any(b"SECRET" in path.read_bytes() or "SECRET" in str(path) for path in files)
    if out == "out.jsonl":
        assert {line["key"] for line in lines(Path(out))} == {
            "https://x.org/a.png?id=7", "http://127.0.0.1:9/b.png",
        }  # fmt: skip


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet", "texts/"])
def test_rows_that_0_1_0_called_otherwise_are_recognised(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """Base names in Parquet, of which it took the first alone, and rows with an ``id``."""
    cells = [{"bytes": png(n), "path": name} for n, name in enumerate(["a.png", "b.png", "a.png"])]
    parquet.write_table(arrow.table({"image": cells}), "p.parquet")
    Path("cat.png").write_bytes(png(9))
    data = "data:image/png;base64," + pybase64.b64encode(png(8)).decode()
    rows = [{"id": "seven", "image": data}, {"key": 0, "image": "cat.png"}]
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents = [{**OLD[0], "key": key, "file": f"{number}.txt"} for number, key in
                 enumerate(["a.png", "b.png", "m.jsonl#0", "cat.png"])]  # fmt: skip
    monkeypatch.setattr(f"{__name__}.OLD", documents)
    left_by_the_old(out)
    loopback.will(Reply(body=completion("A dog.")))
    for _ in range(2):
        with ivl.Client(base_url=loopback.url, model="m") as client:
            done = [
                outcome.key
                for source in ("p.parquet", "m.jsonl")
                for outcome in client.describe_many(source, out=out)
            ]
        assert done in (["p.parquet#2"], [])
    assert sum(bool(heard.body) for heard in loopback.heard) == 1


def test_several_paths_of_one_question_are_recognised(loopback: Loopback) -> None:
    Path("cat.png").write_bytes(png(9))
    line = {**OLD[0], "key": "#0-7f83fe648666"}
    Path("out.jsonl").write_text(json.dumps(line) + "\n")
    with ivl.Client(base_url=loopback.url, model="m") as client:
        assert not list(client.describe_many([["cat.png", "cat.png"]], out="out.jsonl"))
