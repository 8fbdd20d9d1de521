"""What is written, what a second run makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet

import internvl_modal as ivl
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome, fingerprint, key_hash
from internvl_modal.batch.sinks import parquet as parts
from internvl_modal.batch.sinks.choose import sink_for
from internvl_modal.batch.sinks.lines import encode, end_of_lines, record
from internvl_modal.batch.sinks.parquet import Parquet
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.results import Description, Usage
from tests.batch.conftest import Fast, lines
from tests.loopback import Heard, Loopback, Reply, completion

OUTS = ["out.jsonl", "out.parquet", "texts/"]


@pytest.fixture
def server(fast: Callable[..., Fast]) -> Fast:
    return fast()


@pytest.fixture
def client(server: Fast) -> Iterator[ivl.Client]:
    with ivl.Client(base_url=server.url, retry=ivl.Retry(attempts=2, initial=0.01)) as made:
        yield made


def written(out: str) -> list[dict[str, object]]:
    if out.endswith(".parquet"):
        rows: list[dict[str, object]] = parquet.read_table(out).to_pylist()
        return rows
    return lines(Path(out if out.endswith(".jsonl") else f"{out}.internvl-modal.jsonl"))


@pytest.mark.parametrize("out", OUTS)
def test_a_second_run_adds_only_what_is_new(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path], out: str
) -> None:
    folder = pictures(20)
    (folder / "broken.png").write_bytes(b"")
    assert len(list(client.describe_many(folder, out=out, detail=1))) == 21
    assert len(server.report()["log"]) == 20
    assert not list(client.describe_many(folder, out=out, detail=1))
    assert len(list(client.describe_many(pictures(25), out=out, detail=1))) == 5
    assert len(server.report()["log"]) == 5
    assert Counter(row["key"] for row in written(out)).most_common(1)[0][1] == 1
    other = list(client.describe_many(folder, "Which colour?", out=out, detail=1))
    assert len(other) == 26
    assert len(server.report()["log"]) == 25
    assert len({row["run"] for row in written(out)}) == 2
    assert len(written(out)) == 52


@pytest.mark.parametrize("out", OUTS)
def test_failures_are_tried_again_when_asked(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path], out: str
) -> None:
    folder = pictures(6)
    broken = folder / "000003.png"
    good = broken.read_bytes()
    broken.write_bytes(b"")
    list(client.describe_many(folder, out=out, detail=1))
    broken.write_bytes(good)
    told: list[ivl.BatchProgress] = []
    assert not list(client.describe_many(folder, out=out, detail=1, progress=told.append))
    assert (told[-1].failed, told[-1].skipped, told[-1].failed_before) == (0, 6, 1)
    server.report()
    again = list(client.describe_many(folder, out=out, retry_errors=True, detail=1))
    assert [outcome.key for outcome in again] == [str(broken)]
    assert len(server.report()["log"]) == 1
    rows = {row["key"]: row for row in written(out)}
    assert len(rows) == len(written(out)) == 6
    assert rows[str(broken)]["text"]


@pytest.mark.parametrize("out", OUTS)
def test_without_resume_it_starts_anew(
    client: ivl.Client, pictures: Callable[[int], Path], out: str
) -> None:
    list(client.describe_many(pictures(5), out=out, detail=1))
    assert len(list(client.describe_many(pictures(5), out=out, resume=False, detail=1))) == 5
    assert len(written(out)) == 5


def opened(out: str, *, resume: bool = True) -> None:
    sink = sink_for(Job.parse(None, {"out": out, "resume": resume}), [])
    try:
        sink.open("run")
    finally:
        sink.close()


def contents() -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in Path().rglob("*")
        if path.is_file() and path.stat().st_size and "pictures" not in path.parts
    }


@pytest.mark.parametrize("out", OUTS)
def test_nothing_old_goes_before_something_new_is_there(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path], out: str
) -> None:
    list(client.describe_many(pictures(3), out=out, detail=1))
    before = contents()
    with pytest.raises(ivl.ConfigError, match="does not exist"):
        list(client.describe_many("nofolder", out=out, resume=False, detail=1))
    assert not list(client.describe_many([], out=out, resume=False, detail=1))
    server.set(status=401)
    with pytest.raises(ivl.AuthenticationError):
        list(client.describe_many(pictures(3), out=out, resume=False, detail=1))
    assert contents() == before


@pytest.mark.parametrize("content", ['{"precious": 1}\n', '{"precious": 1}'])
@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("out", ["out.jsonl", "texts/"])
def test_files_that_no_batch_wrote_are_left_alone(out: str, resume: bool, content: str) -> None:
    path = Path("texts/.internvl-modal.jsonl" if out == "texts/" else out)
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(ivl.ConfigError, match=r"line 1 of .*\.jsonl is not one of a batch"):
        opened(out, resume=resume)
    assert path.read_text() == content


@pytest.mark.parametrize("table", [{"precious": [1]}, None])
@pytest.mark.parametrize("resume", [True, False])
def test_parts_that_no_batch_wrote_are_left_alone(
    resume: bool, table: dict[str, Any] | None
) -> None:
    part = Path("out.parquet/part-00000.parquet")
    part.parent.mkdir()
    part.write_bytes(b"notes")
    if table is not None:
        parquet.write_table(arrow.table(table), part)
    before = part.read_bytes()
    with pytest.raises(ivl.ConfigError, match=r"part-00000\.parquet is not one of a batch"):
        opened("out.parquet", resume=resume)
    assert part.read_bytes() == before


@pytest.mark.parametrize("out", ["list.jsonl", "./list.jsonl", "linked.jsonl"])
@pytest.mark.parametrize("resume", [True, False])
def test_the_source_is_not_written(out: str, resume: bool) -> None:
    content = '{"key": "a", "image": "a.png", "text": "b"}\n'
    Path("list.jsonl").write_text(content)
    Path("linked.jsonl").symlink_to("list.jsonl")
    with pytest.raises(ivl.ConfigError, match="is the source itself"):
        sink_for(Job.parse(None, {"out": out, "resume": resume}), "list.jsonl")
    assert Path("list.jsonl").read_text() == content


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("/proc/x.jsonl", "/proc/x.jsonl cannot be written: No such file"),
        ("folder.jsonl", "folder.jsonl cannot be written: Is a directory"),
        ("file.parquet", "file.parquet/.journal.jsonl cannot be written: File exists"),
    ],
)
def test_a_place_that_cannot_be_written(out: str, message: str) -> None:
    Path("folder.jsonl").mkdir()
    Path("file.parquet").write_text("mine")
    with pytest.raises(ivl.ConfigError, match=message) as caught:
        opened(out)
    assert caught.value.hint == "choose another out="


def test_a_callable_gets_every_outcome(client: ivl.Client, pictures: Callable[[int], Path]) -> None:
    got: list[Outcome] = []
    outcomes = list(client.describe_many(pictures(9), out=got.append, detail=1))
    assert outcomes == got

    def broken(_: Outcome) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        list(client.describe_many(pictures(9), out=broken, detail=1))


def test_a_key_that_comes_twice_is_written_once(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    paths = [*pictures(4).iterdir()] * 2
    assert len(list(client.describe_many(paths, out="out.jsonl", detail=1))) == 4
    assert len(lines(Path("out.jsonl"))) == 4


def test_two_batches_cannot_write_one_file(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    first = client.describe_many(pictures(100), out="out.jsonl", concurrency=1, detail=1)
    next(first)
    with pytest.raises(ivl.ConfigError, match=r"another batch is writing out\.jsonl"):
        list(client.describe_many(pictures(100), out="out.jsonl", detail=1))
    list(first)
    assert len(lines(Path("out.jsonl"))) == 100


def test_a_file_of_something_else_is_left_alone(client: ivl.Client) -> None:
    Path("out.jsonl").write_text('{"key": "a", "text": "b"}\nnotes\n{"torn')
    with pytest.raises(ivl.ConfigError, match=r"line 2 of out\.jsonl"):
        list(client.describe_many([], out="out.jsonl"))
    assert Path("out.jsonl").read_text().endswith('{"torn')


def described(text: str = "A cat.") -> Description:
    return Description(text=text, model="m", finish_reason="stop", usage=Usage(prompt_tokens=1))


def test_a_journal_that_became_a_part_is_not_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("out.parquet")
    outcomes = [Outcome(f"{number}", "", described()) for number in range(7)]
    sink = Parquet(folder, resume=True, retry_errors=False)
    sink.open("run")
    sink.write(outcomes)
    journal = (folder / parts.JOURNAL).read_bytes()
    sink.close()
    (folder / parts.JOURNAL).write_bytes(journal)  # as if killed between the two
    again = Parquet(folder, resume=True, retry_errors=False)
    again.open("run")
    assert all(again.claim(f"{number}") for number in range(7))
    assert not again.claim("7")
    again.write([Outcome("7", "", described())])
    again.close()
    assert sorted(row["key"] for row in written("out.parquet")) == list("01234567")


@pytest.mark.parametrize("out", OUTS)
def test_a_file_whose_name_is_no_unicode(
    client: ivl.Client, pictures: Callable[[int], Path], out: str
) -> None:
    folder = pictures(3)
    for name in (b"caf\xe9.png", b"caf\xe8.png"):
        os.link(folder / "000000.png", os.fsencode(folder) + b"/" + name)
    (folder / "broken\udce9.png").write_bytes(b"")
    assert len(list(client.describe_many(folder, out=out, detail=1))) == 6
    assert not list(client.describe_many(folder, out=out, detail=1))
    assert len(written(out)) == 6
    again = list(client.describe_many(folder, out=out, retry_errors=True, detail=1))
    assert [outcome.key for outcome in again] == [f"{folder}/broken\udce9.png"]


def test_a_part_that_cannot_be_written_leaves_no_lock(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    in_the_way = Path("out.parquet/.part-00000.parquet.new")
    in_the_way.mkdir(parents=True)
    with pytest.raises(ivl.InternVLError, match=r"part-00000\.parquet cannot be written"):
        list(client.describe_many(pictures(3), out="out.parquet", detail=1))
    in_the_way.rmdir()
    assert not list(client.describe_many(pictures(3), out="out.parquet", detail=1))
    assert len(written("out.parquet")) == 3


def test_many_rows_make_many_parts() -> None:
    sink = Parquet(Path("out.parquet"), resume=True, retry_errors=False)
    sink.open("run")
    for start in range(0, 25_000, 5000):
        sink.write([Outcome(f"{start + n}", "", described()) for n in range(5000)])
    sink.close()
    assert len(list(Path("out.parquet").glob("part-*.parquet"))) == 3
    assert parquet.read_table("out.parquet").num_rows == 25_000


def test_any_name_and_text_survives() -> None:
    for text in ("naïve 日本\u2028\n\"'", "\ud800"):
        outcome = Outcome(f"{text}\udcff.jpg", "", described(text))
        line = encode(record(outcome, "run"))
        assert line.count(b"\n") == 1
        assert json.loads(line)["text"] == text
        key_hash(outcome.key)


def test_the_fingerprint_is_of_what_changes_the_answer() -> None:
    base = fingerprint("p", DescribeOptions(), "m")
    assert base == fingerprint("p", DescribeOptions(timeout=3), "m")
    for prompt, options, model in [
        ("q", DescribeOptions(), "m"),
        ("p", DescribeOptions(), "n"),
        ("p", DescribeOptions(detail=1), "m"),
    ]:
        assert fingerprint(prompt, options, model) != base


@pytest.mark.parametrize(
    ("text", "end"), [("", 0), ("torn", 0), ("a\n", 2), ("a\n" + "b" * 99_999, 2)]
)
def test_where_lines_end(tmp_path: Path, text: str, end: int) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    assert end_of_lines(path) == end


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of files at the moment they were forced to the disk."""
    sizes: list[int] = []
    force = os.fsync

    def fsync(descriptor: int) -> None:
        force(descriptor)
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    return sizes


def test_lines_are_forced_to_the_disk_in_a_pause_and_at_the_end(
    loopback: Loopback, pictures: Callable[[int], Path], synced: list[int]
) -> None:
    over, out = threading.Event(), Path("out.jsonl")

    def hang(_: Heard) -> Reply:
        over.wait(30)
        return Reply(body=completion())

    loopback.will(Reply(body=completion()), hang)
    with ivl.Client(base_url=loopback.url) as client:
        outcomes = client.describe_many(pictures(2), out=out, concurrency=1, detail=1)
        next(outcomes)
        first = out.stat().st_size
        deadline = time.monotonic() + 30
        while first not in synced and time.monotonic() < deadline:
            time.sleep(0.1)
        assert first in synced
        over.set()
        list(outcomes)
    assert synced[-1] == out.stat().st_size > first


CLI = "from internvl_modal.cli.batch import batch; import typer; a = typer.Typer(); a.command()(batch); raise SystemExit(a(standalone_mode=False))"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CLI, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_on_a_folder_with_50_broken_files(
    server: Fast, pictures: Callable[[int], Path]
) -> None:
    folder = pictures(1000)
    for number in range(50):
        (folder / f"broken{number}.jpg").write_bytes(b"")
    arguments = (folder, "--out", "out.jsonl", "--base-url", server.url, "--detail", "1")
    done = command(*arguments, "--concurrency", "8")
    assert (done.returncode, done.stdout) == (1, "1,000 described, 50 failed -> out.jsonl\n")
    for number in range(50):
        assert f"{folder}/broken{number}.jpg: ImageError: empty, there are no" in done.stderr
    again = command(*arguments)
    before = "1,050 there before (50 failed: --retry-errors asks again)"
    assert again.stdout == f"0 described, 0 failed, {before} -> out.jsonl\n"
    assert again.returncode == 1
    status = command("--status", "out.jsonl")
    found = json.loads(status.stdout)
    assert (status.returncode, found["described"], found["failed"]) == (1, 1000, {"ImageError": 50})
    assert "SOURCE and --out are needed" in command("--out", "x.jsonl").stderr
    assert "does not exist" in command("--status", "nothing.jsonl").stderr
    folder = command("--status", ".")
    assert "is a folder without texts" in folder.stderr
    Path("texts").mkdir()
    Path("texts/.internvl-modal.jsonl").write_bytes(Path("out.jsonl").read_bytes())
    assert command("--status", "texts").stdout == status.stdout
    Path("keys.jsonl").write_text('{"key": "a"}\n')
    assert "line 1 of keys.jsonl is not one of a batch" in command("--status", "keys.jsonl").stderr
    for error in ('"boom"', "null"):
        Path("odd.jsonl").write_text(f'{{"key": "a", "text": "b", "error": {error}}}\n')
        assert "line 1 of odd.jsonl is not one of" in command("--status", "odd.jsonl").stderr
    Path("short.jsonl").write_text('{"key": "a", "text": "b"}\n')
    assert json.loads(command("--status", "short.jsonl").stdout)["described"] == 1


def test_the_command_keeps_queries_of_urls_to_itself(server: Fast) -> None:
    Path("list.txt").write_text("http://127.0.0.1:9/a.jpg?signature=secret\n")
    done = command("list.txt", "--out", "out.jsonl", "--base-url", server.url)
    assert "http://127.0.0.1:9/a.jpg: ImageError" in done.stderr
    assert "secret" not in done.stdout + done.stderr
