"""A part of a source, what it says of the whole, and what is told meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.batch.projection import lasting
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.counting import Counting
from internvl_modal.batch.sources.inputs import Sources, read
from internvl_modal.batch.sources.sample import Drawing
from internvl_modal.protocol.endpoint import Endpoint
from tests.batch.conftest import Fast, lines
from tests.batch.sources import png, tar


def test_the_first_of_a_folder_and_then_the_rest(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    folder = pictures(30)
    first = client.describe_many(folder, out="out.jsonl", limit=7, detail=1)
    assert len(list(first)) == 7
    assert (first.summary.total, first.summary.described) == (7, 7)
    assert first.summary.projection is not None
    assert first.summary.projection.pictures == 30
    again = client.describe_many(folder, out="out.jsonl", limit=7, detail=1)
    assert list(again) == []
    assert again.summary.skipped == 7
    rest = client.describe_many(folder, out="out.jsonl", detail=1)
    assert len(list(rest)) == 23
    assert (rest.summary.total, rest.summary.done, rest.summary.projection) == (30, 30, None)


def test_nothing_beyond_the_limit_is_read(client: ivl.Client) -> None:
    read_so_far = []

    def endless() -> Iterator[tuple[str, bytes]]:
        for number in range(10**9):
            read_so_far.append(number)
            yield str(number), png(number)

    assert len(list(client.describe_many(endless(), limit=5, detail=1))) == 5
    assert read_so_far == [0, 1, 2, 3, 4]


def keys(many: Any) -> list[str]:
    return [outcome.key for outcome in many]


def test_a_sample_is_the_same_whatever_the_order(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    files = sorted(map(str, pictures(200).iterdir()))
    how: dict[str, Any] = {"ordered": True, "detail": 1}
    drawn = keys(client.describe_many(files, sample=20, **how))
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 20
    assert keys(client.describe_many(files[::-1], sample=20, **how)) == drawn[::-1]
    assert keys(client.describe_many(iter(files), sample=20, **how)) == drawn
    assert sorted(keys(client.describe_many(Path(files[0]).parent, sample=20, **how))) == drawn
    assert set(keys(client.describe_many(files, sample=50, **how))) > set(drawn)
    assert keys(client.describe_many(files, sample=20, seed=1, **how)) != drawn
    assert keys(client.describe_many(files, sample=900, **how)) == files
    assert drawn != files[:20]


def test_a_sample_of_streams_of_rows_and_of_memory(client: ivl.Client) -> None:
    rows = [{"id": str(n), "image": png(n), "what": f"{n}?"} for n in range(100)]

    async def stream() -> AsyncIterator[dict[str, Any]]:
        for row in rows:
            yield row

    async def main() -> list[str]:
        async with ivl.AsyncClient(client.backend) as other:
            many = other.describe_many(stream(), "{what}", sample=9, ordered=True, detail=1)
            return [outcome.key async for outcome in many]

    many = client.describe_many(iter(rows), prompt_column="what", sample=9, ordered=True, detail=1)
    drawn = list(many)
    assert many.summary.projection is not None
    assert many.summary.projection.pictures == 100  # all had to be read
    assert [each.prompt for each in drawn] == [f"{each.key}?" for each in drawn]
    assert asyncio.run(main()) == [each.key for each in drawn]


def test_pictures_that_use_their_memory_again(client: ivl.Client) -> None:
    """What is drawn is copied when it is drawn."""
    frame = Image.new("RGB", (8, 8))

    def frames() -> Iterator[Image.Image]:
        for number in range(60):
            frame.paste((number, 0, 0), (0, 0, 8, 8))
            yield frame

    outcomes = list(client.describe_many(frames(), sample=6, detail=1))
    assert len({outcome.text for outcome in outcomes}) == 6


def test_a_sample_is_fair() -> None:
    """Each of a hundred keys is drawn a tenth of the time."""
    times = dict.fromkeys(map(str, range(100)), 0)
    for seed in range(2000):
        drawing = Drawing(10, seed)
        for key in times:
            drawing.show(key, lambda key=key: key)  # type: ignore[misc,return-value]
        for key in drawing.drawn():
            times[key] += 1  # type: ignore[index]
    assert sum(times.values()) == 20_000
    assert 150 < min(times.values()) < max(times.values()) < 260


def test_the_price_is_projected(server: Fast, pictures: Callable[[int], Path]) -> None:
    class Priced:
        name = "priced"

        def start(self) -> Endpoint:
            return Endpoint(server.url, "m", usd_per_hour=3600.0)

        def stop(self) -> None:
            """Nothing."""

    with ivl.Client(Priced()) as client:
        many = client.describe_many(pictures(40), limit=8, detail=1)
        list(many)
    told = many.summary.projection
    assert told is not None
    assert told.usd == pytest.approx(told.seconds)
    assert (told.pictures, told.completion_tokens) == (40, 120)
    assert re.fullmatch(r"40 pictures would take \d+ s and 120 tokens, \d+\.\d\d USD", str(told))


def test_one_of_both(client: ivl.Client) -> None:
    with pytest.raises(ivl.ConfigError, match="limit= and sample= are given"):
        client.describe_many([], limit=1, sample=1)
    for how in ({"limit": 0}, {"sample": 0}):
        with pytest.raises(ivl.ConfigError, match="greater than or equal to 1"):
            client.describe_many([], **how)


def counted(images: Any, **choice: Any) -> int | None:
    counting = Counting(images, Choice(**choice))
    counting.start()
    if counting.under_way is not None:
        counting.under_way.result(60)
    counting.close()
    return counting.total


def test_what_is_counted_is_what_is_read(pictures: Callable[[int], Path], tmp_path: Path) -> None:
    import pandas

    folder = pictures(12)
    (folder / "sub").mkdir()
    (folder / "sub" / "x.jpg").write_bytes(b"")
    (folder / "notes.md").write_text("no")
    frame = pandas.DataFrame({"path": [str(each) for each in folder.glob("*.png")]})
    frame.to_csv("a.csv", index=False)
    frame.to_csv("b.csv", index=False)
    frame.to_parquet("a.parquet")
    Path("a.txt").write_text("\n".join(frame["path"]) + "\n\n")
    frame.to_json("a.jsonl", orient="records", lines=True)
    for images in (
        str(folder), folder, f"{folder}/*", f"{folder}/**", f"{folder}/*.png", "*.csv", "a.csv",
        "a.parquet", "*.parquet", "a.txt", "a.jsonl", "{a,b}.csv", f"{folder}/00000{{0..3}}.png",
        Sources(("a.csv", str(folder), f"{folder}/sub/x.jpg")),
    ):  # fmt: skip
        assert counted(images) == sum(1 for _ in read(images, Choice())), images
    for number in range(3):
        Path(f"s-{number}.tar").write_bytes(
            tar((f"{number}.png", "._a.png", "b/c.jpg", "a.txt"))[0]
        )
    for images in ("s-0.tar", "s-{0..2}.tar", "s-*.tar", Sources(("s-1.tar", "a.csv"))):
        assert counted(images) == sum(1 for _ in read(images, Choice())), images
    Path("x.tar").touch()
    Path("z.tar").write_bytes(bytes(10_240))
    Path("cut.tar").write_bytes(tar()[0][:2_000])
    Path("packed.tar").write_bytes(gzip.compress(tar()[0]))
    for images in (
        "z.tar",
        "cut.tar",
        "packed.tar",
        "{s-0,cut}.tar",
        "x.tar",
        "*.tar",
        "-",
        "s3://b/x",
        "missing",
        iter([]),
        Sources(("-", "a.csv")),
    ):
        assert counted(images) is None
    assert counted(["a.png"]) == 1


def command(
    *arguments: object, given: str | bytes = "", **more: Any
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_modal", "batch", *map(str, arguments)],
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        check=False,
        **more,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_many_names_as_a_shell_gives_them(server: Fast, pictures: Callable[[int], Path]) -> None:
    folder = pictures(5)
    names = sorted(map(str, folder.iterdir()))
    rest = ("--out", "out.jsonl", "--base-url", server.url, "--detail", "1")
    done = command(*names, *rest)
    assert (done.returncode, done.stdout) == (0, "5 described, 0 failed -> out.jsonl\n")
    done = command(folder, "missing.png", *rest)
    assert done.stdout == "0 described, 1 failed, 5 there before -> out.jsonl\n"
    assert "missing.png: ImageError: does not exist" in done.stderr
    done = command("missing.png", *rest)
    assert done.returncode == 2


def test_a_list_on_standard_input(server: Fast, pictures: Callable[[int], Path]) -> None:
    folder = pictures(4)
    rest = ("--out", "out.jsonl", "--base-url", server.url, "--detail", "1")
    names = sorted(map(str, folder.iterdir()))
    done = command("-", *rest, given="\n".join(names[:3]))
    assert done.stdout == "3 described, 0 failed -> out.jsonl\n"
    assert {line["key"] for line in lines(Path("out.jsonl"))} == set(names[:3])
    odd = folder / os.fsdecode(b"caf\xe9.png")
    Path(names[3]).rename(odd)
    done = command("-", names[0], *rest, given=os.fsencode(odd) + b"\n")
    assert done.stdout == "1 described, 0 failed, 1 there before -> out.jsonl\n"
    assert command("-", *rest).stdout == "0 described, 0 failed -> out.jsonl\n"


def test_the_command_projects_and_takes_schemas(
    loopback: Any, pictures: Callable[[int], Path]
) -> None:
    from tests.loopback import Reply, completion

    loopback.will(Reply(body=completion('{"colour": "red"}')))
    rest = ("--base-url", loopback.url, "--model", "m", "--detail", "1")
    folder = pictures(6)
    Path("cups.py").write_text(
        "from typing import Literal\nfrom pydantic import BaseModel\n"
        "class Cup(BaseModel):\n    colour: Literal['red', 'blue']\n"
    )
    Path("cup.json").write_text('{"type": "object", "required": ["colour"]}')
    for number, schema in enumerate(("cups.py:Cup", "cups:Cup", "cup.json")):
        out = f"out{number}.jsonl"
        done = command(folder, "--schema", schema, "--limit", "2", "--out", out, *rest)
        assert done.returncode == 0, done.stderr
        assert "6 pictures would take" in done.stdout
        assert {line["colour"] for line in lines(Path(out))} == {"red"}
    done = command(folder, "--prompts", "a=A?", "--prompts", "b=B=?", "--out", "two.jsonl", *rest)
    assert done.returncode == 0, done.stderr
    assert lines(Path("two.jsonl"))[0]["b"] == '{"colour": "red"}'
    for wrong in ("cups.py:No", "no.py:Cup", "no:Cup", "no.json", "cups.py"):
        done = command(folder, "--schema", wrong, "--out", "x.jsonl", *rest)
        assert (done.returncode, done.stderr[:6]) == (2, "error:"), done.stderr
    done = command(folder, "--prompts", "a", "--out", "x.jsonl", *rest)
    assert "write NAME=PROMPT" in done.stderr


def on_a_terminal(*arguments: object) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "internvl_modal", "batch", *map(str, arguments)],
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    told = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so at the end of it
            break
        if not piece:
            break
        told += piece
    process.wait(60)
    os.close(ours)
    return told.decode(errors="replace")


def test_a_bar_with_an_end_and_failures_above_it(
    fast: Callable[..., Fast], pictures: Callable[[int], Path]
) -> None:
    folder = pictures(60)
    for number in range(3):
        (folder / f"broken{number}.jpg").write_bytes(b"")
    url = fast("--latency", "0.1").url
    told = on_a_terminal(
        folder, "--out", "o.jsonl", "--base-url", url, "--detail", 1, "--max-concurrency", 8
    )
    assert "/63 pictures" in told
    assert "100%|" in told
    assert "ETA" in told
    assert max(told.count("ETA", *found.span()) for found in re.finditer(r"[^\r\n]+", told)) == 1
    # Each failure is a line of its own: after a line was cleared, and to the line's end.
    for number in range(3):
        assert re.search(
            rf"\r[^\S\r\n]*\r{re.escape(str(folder))}/broken{number}\.jpg: ", told
        ) or (re.search(rf"(^|\n){re.escape(str(folder))}/broken{number}\.jpg: ", told))


def test_lengths_of_time() -> None:
    assert [lasting(seconds) for seconds in (0, 89, 90, 5400, 100_000, 300_000)] == [
        "0 s", "89 s", "2 min", "1 h 30 min", "27 h 47 min", "3 d 11 h",
    ]  # fmt: skip
