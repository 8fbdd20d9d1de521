"""Outputs at addresses: parts through fsspec, here in its file systems of memory and of files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import internvl_modal as ivl
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sinks import remote
from internvl_modal.batch.sinks.choose import sink_for
from internvl_modal.batch.sinks.remote import RemoteParts
from tests.batch.conftest import QUICK, Fast
from tests.loopback import Loopback, Reply, completion

fsspec = pytest.importorskip("fsspec", reason="pip install 'internvl-modal[remote]'")

OUTS = ["memory://bucket/out.jsonl", "memory://bucket/out.parquet"]


@pytest.fixture(autouse=True)
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def parts(memory: Any) -> dict[str, bytes]:
    return {name: memory.cat_file(name) for name in sorted(memory.find("/bucket"))}


def rows(memory: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, data in parts(memory).items():
        if name.endswith(".parquet"):
            found += parquet.read_table(io.BytesIO(data)).to_pylist()
        else:
            found += map(json.loads, data.splitlines())
    return found


@pytest.mark.parametrize("out", OUTS)
def test_it_goes_on_tries_again_and_starts_anew(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path], memory: Any, out: str
) -> None:
    folder = pictures(5)
    broken = folder / "000002.png"
    good = broken.read_bytes()
    broken.write_bytes(b"")
    list(client.describe_many(folder, out=out, detail=1))
    assert {row["key"] for row in rows(memory)} == set(map(str, folder.iterdir()))
    broken.write_bytes(good)
    server.report()
    assert not list(client.describe_many(folder, out=out, detail=1))
    again = list(client.describe_many(pictures(6), out=out, retry_errors=True, detail=1))
    assert len(again) == len(server.report()["log"]) == 2
    assert len(rows(memory)) == 6
    assert all(row["text"] for row in rows(memory))
    assert len(list(client.describe_many(folder, "Other?", out=out, detail=1))) == 6
    assert len(rows(memory)) == 12
    list(client.describe_many(folder, out=out, resume=False, detail=1))
    assert len(rows(memory)) == 6


def outcome(key: str) -> Outcome:
    return Outcome(key, "", error=ivl.ImageError("broken", source=key))


def opened(out: str, **how: bool) -> Any:
    sink = sink_for(Job.parse(None, {"out": out, **how}), [])
    sink.open("run")
    return sink


@pytest.mark.parametrize("out", OUTS)
def test_many_rows_and_a_long_time_make_parts(
    monkeypatch: pytest.MonkeyPatch, memory: Any, out: str
) -> None:
    monkeypatch.setattr(remote, "PART_ROWS", 3)
    sink = opened(out)
    sink.write([outcome("a"), outcome("b"), outcome("c"), outcome("d")])
    sink.write([outcome("e")])
    assert len(parts(memory)) == 1
    monkeypatch.setattr(remote, "PART_SECONDS", 0.0)
    time.sleep(0.01)
    sink.write([])
    assert len(parts(memory)) == 2
    sink.close()
    assert len(parts(memory)) == 2
    assert [name.rpartition("/")[2][:11] for name in parts(memory)] == [
        "part-00000-",
        "part-00001-",
    ]
    sink = opened(out)
    assert all(map(sink.claim, "abcde"))
    assert not sink.claim("f")


@pytest.mark.parametrize("out", OUTS)
def test_parts_of_others_are_left_alone(memory: Any, out: str) -> None:
    foreign = f"/bucket/out.{out.rpartition('.')[2]}/part-00000-abcd.{out.rpartition('.')[2]}"
    memory.pipe_file(foreign, b'{"precious": 1}\n')
    with pytest.raises(ivl.ConfigError, match="is not one of a batch"):
        opened(out)
    assert parts(memory) == {foreign: b'{"precious": 1}\n'}
    memory.rm("/bucket", recursive=True)
    memory.pipe_file(out.partition(":/")[2], b"mine")
    with pytest.raises(ivl.ConfigError, match="is a file, and parts need a folder"):
        opened(out)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (
            "https://example.org/out.jsonl",
            "nothing can be written to https://example.org/out.jsonl",
        ),
        ("data:text/plain,out.jsonl", "nothing can be written"),
        ("s3://user:secret@bucket/texts/", "says no format that is written there"),
        ("s3://bucket/out.csv", "says no format"),
        (Path("s3://user:secret@bucket/out.jsonl"), "that has lost a /"),
    ],
)
def test_addresses_where_nothing_can_be_written(out: str | Path, message: str) -> None:
    with pytest.raises(ivl.ConfigError, match=message) as caught:
        sink_for(Job.parse(None, {"out": out}), [])
    assert "secret" not in str(caught.value)
    assert caught.value.hint
    assert not list(Path().glob("*:*"))


def test_without_fsspec_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['fsspec'] = None; import internvl_modal as ivl\nlist(ivl.Client(base_url='http://127.0.0.1:9').describe_many(['a.png'], out='s3://b/o.jsonl'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError" in done.stderr
    assert "internvl-modal[remote]" in done.stderr


def test_what_cannot_be_written_there_is_kept_here(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    """The address is a folder below a file."""
    Path("file").write_text("mine")
    loopback.will(Reply(body=completion("A cat.")))
    with (
        ivl.Client(base_url=loopback.url, retry=QUICK) as client,
        pytest.raises(ivl.InternVLError, match=r"out\.jsonl cannot be written") as caught,
    ):
        list(client.describe_many(pictures(2), out=f"file://{Path('file').resolve()}/out.jsonl"))
    kept = Path(caught.value.hint.partition("is in ")[2].partition(": copy")[0])
    assert [json.loads(line)["text"] for line in kept.read_text().splitlines()] == ["A cat."] * 2
    kept.unlink()


def test_it_says_that_nothing_guards_it() -> None:
    said = "^nothing guards memory://b/out.jsonl: no other batch may write there meanwhile$"
    with pytest.warns(ivl.InternVLWarning, match=said) as told:
        RemoteParts("memory://a:secret@b/out.jsonl", resume=True, retry_errors=False).open("run")
    assert len(told) == 1
