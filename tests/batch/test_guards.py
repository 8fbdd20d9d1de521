"""Where outputs go: never through a link or into a device, and guarded where that is possible."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import internvl_modal as ivl
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sinks.choose import sink_for
from internvl_modal.batch.sinks.lines import record
from internvl_modal.batch.sinks.text_files import JOURNAL
from internvl_modal.images import prepare
from internvl_modal.schema.results import Description, Usage
from tests.batch.conftest import lines
from tests.batch.test_sidecars import named, opened, outcome, texts
from tests.loopback import Loopback, Reply, completion


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet", "texts/"])
def test_a_file_system_without_locks(
    client: ivl.Client,
    pictures: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    out: str,
) -> None:
    def flock(_: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = pictures(3)
    (folder / "broken.png").write_bytes(b"")
    said = f"^nothing guards {out.rstrip('/')}"
    with pytest.warns(ivl.InternVLWarning, match=said) as told:
        assert len(list(client.describe_many(folder, out=out, detail=1))) == 4
    assert len(told) == 1
    assert len(list(client.describe_many(folder, out=out, retry_errors=True, detail=1))) == 1


@pytest.mark.parametrize(
    "name", ["out.jsonl", "linked.jsonl", f"texts/{JOURNAL}", "out.parquet/.journal.jsonl",
             "out.parquet/part-00000.parquet"]
)  # fmt: skip
def test_what_is_no_file_is_refused(name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    if name == "linked.jsonl":
        Path(name).symlink_to("/dev/null")
    else:
        os.mkfifo(name)
    out = name if name.endswith("d.jsonl") or name == "out.jsonl" else f"{Path(name).parent}/"
    out = out.rstrip("/") if "parquet" in out else out
    with pytest.raises(ivl.ConfigError, match="is no regular file"):
        sink = sink_for(Job.parse(None, {"out": out}), [])
        try:
            sink.open("run")
        finally:
            sink.close()


@pytest.mark.parametrize(
    ("out", "name"),
    [
        ("texts/", ".k.txt.new"),
        ("texts/", JOURNAL),
        ("texts/", "k.txt"),
        ("out.parquet", ".part-00000.parquet.new"),
        ("out.parquet", ".journal.jsonl"),
        ("out.jsonl", ".out.jsonl.new"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_no_link_is_written_through(
    client: ivl.Client, pictures: Callable[[int], Path], out: str, name: str, there: bool
) -> None:
    victim = Path("victim")
    if there:
        victim.write_text("PRECIOUS")
    folder = Path() if out == "out.jsonl" else Path(out)
    folder.mkdir(exist_ok=True)
    (folder / name).symlink_to(victim.resolve())
    picture = next(pictures(1).iterdir())
    for retry in (False, True):
        try:
            given = [("k.png", picture), ("broken", b"")]
            list(client.describe_many(given, out=out, retry_errors=retry, detail=1))
        except ivl.ConfigError as error:
            assert "journal" in name or "internvl" in name, error
    assert victim.exists() == there
    assert not there or victim.read_text() == "PRECIOUS"


def test_a_link_that_the_user_names_stays_one(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    Path("disk").mkdir()
    Path("out.jsonl").symlink_to("disk/real.jsonl")
    given = [*pictures(2).iterdir(), ("broken", b"")]
    for retry in (False, True):
        list(client.describe_many(given, out="out.jsonl", retry_errors=retry, detail=1))
    assert Path("out.jsonl").is_symlink()
    assert len(lines(Path("disk/real.jsonl"))) == 3


def test_only_endings_of_pictures_are_cut() -> None:
    keys = {"scan.001": "scan.001.txt", "v1.2": "v1.2.txt", "a.JPG": "a.txt", "b.tar/c.jpeg": "b.tar/c.txt",
            "d": "d.txt", "https://x.org/e.png?id=3": "https_/x.org/e.txt"}  # fmt: skip
    sink = opened()
    sink.write([outcome(key) for key in keys])
    sink.close()
    assert {key: name for name, key in named().items()} == keys


def test_a_hashed_name_that_somebody_has() -> None:
    sink = opened()
    key = "/".join(["x" * 200] * 25) + "/p.jpg"
    sink.write([outcome(key)])
    sink.close()
    (hashed,) = texts()
    Path("texts", hashed).unlink()
    Path("texts", JOURNAL).unlink()
    Path("texts", hashed).write_text("mine")
    sink = opened()
    sink.write([outcome(key), outcome("other.jpg")])
    sink.close()
    assert texts().pop(hashed) == "mine"
    assert len(texts()) == 3


@given(keys=some.lists(some.text(max_size=300), min_size=1, max_size=5, unique=True))
@settings(max_examples=60, deadline=None)
def test_any_key_gets_a_text(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    sink = sink_for(Job.parse(None, {"out": f"{folder}/"}), [])
    sink.open("run")
    sink.write([outcome(key, "A cat.") for key in keys])
    sink.close()
    assert len(texts(folder)) == len(keys)


def test_lines_say_what_was_seen(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    loopback.will(Reply(body=completion(), headers={"x-request-id": "r-1"}))
    files = sorted(map(str, pictures(2).iterdir()))
    with ivl.Client(base_url=loopback.url) as client:
        (done,) = client.describe_many([("two", files)], out="out.jsonl", detail=1)
    assert done.description is not None
    (line,) = lines(Path("out.jsonl"))
    prepared = prepare(files[0], detail=1).info
    assert line["images"] == [{"tiles": prepared.tiles, "tokens": prepared.tokens}] * 2
    assert line["seen"] == done.description.seen
    assert line["request_id"] == done.description.request_id
    assert line["warnings"] == list(done.description.warnings)


def test_a_failed_line_names_its_request(loopback: Loopback) -> None:
    error = ivl.RequestRejectedError("no", status=400, request_id="r-2")
    assert record(Outcome("k", "", error=error), "run")["request_id"] == "r-2"
    usage = Usage(prompt_tokens=1)
    described = Description(text="t", model="m", finish_reason="stop", usage=usage, request_id="r")
    assert record(Outcome("k", "", described), "run")["request_id"] == "r"


def test_a_function_to_await_is_refused() -> None:
    async def out(_: object) -> None: ...

    with pytest.raises(ivl.ConfigError, match="function to await"):
        sink_for(Job.parse(None, {"out": out}), [])


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000, "a/" * 3000])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", "/", "-%04d.tar", ".dataset"])
def test_what_no_system_takes_for_a_name(name: str, ending: str) -> None:
    with pytest.raises(ivl.ConfigError):
        sink_for(Job.parse(None, {"out": name + ending}), []).open("run")
    with pytest.raises(ivl.ConfigError):
        ivl.write_gallery(name + ending)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000])
def test_a_video_that_no_system_takes_for_a_name(name: str) -> None:
    with ivl.Client(base_url="http://127.0.0.1:9/v1") as client, pytest.raises(ivl.ImageError):
        client.describe_video(name)
