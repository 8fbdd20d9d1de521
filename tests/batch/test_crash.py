"""Killed at any moment, a batch goes on where it was; told to stop, it ends what it began.

More kills of each kind: INTERNVL_MODAL_TEST_KILLS=200 pytest tests/batch/test_crash.py --timeout 0
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as arrow
import pytest
from pyarrow import parquet

import internvl_modal as ivl
from internvl_modal.images import prepare
from tests.batch.conftest import Fast, lines

KILLS = int(os.environ.get("INTERNVL_MODAL_TEST_KILLS", "0"))

SCRIPT = """
import sys
import internvl_modal as ivl
from internvl_modal.batch import pipeline, requests, signals
from internvl_modal.transport import aio
url, folder, out, concurrency = sys.argv[1:]
client = ivl.Client(base_url=url, retry=ivl.Retry(attempts=9, initial=0.01))
print("begins", flush=True)
for outcome in client.describe_many(folder, out=out, detail=1, concurrency=int(concurrency)):
    print(outcome.key, flush=True)
"""

OF_A_DATA_SET = SCRIPT.replace(
    "describe_many(folder,", "describe_many(datasets.load_from_disk(folder), key='id',"
).replace("import sys", "import sys, datasets")

IN_A_LOOP = """
import asyncio, sys
import internvl_modal as ivl
url, folder, out, concurrency = sys.argv[1:]

async def main():
    async with ivl.AsyncClient(base_url=url) as client:
        many = client.describe_many(folder, out=out, detail=1, concurrency=int(concurrency))
        async for outcome in many:
            print(outcome.key, flush=True)

print("begins", flush=True)
asyncio.run(main())
"""


def start(
    url: str, folder: Path, out: Path, concurrency: int = 16, script: str = SCRIPT
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, url, str(folder), str(out), str(concurrency)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def finished(out: Path) -> list[str]:
    """What the server was asked for the lines that are whole."""
    whole = out.read_bytes().rpartition(b"\n")[0] if out.exists() else b""
    return [line.split(b'"It is ')[1].split(b".")[0].decode() for line in whole.splitlines()]


def expected(folder: Path) -> dict[str, str]:
    return {path: text_of(path) for path in map(str, folder.iterdir())}


def text_of(path: str) -> str:
    """What the server says of a picture."""
    sent = base64.b64encode(prepare(path, detail=1).payload)
    return f"It is {hashlib.blake2b(sent, digest_size=8).hexdigest()}."


def wait_for_a_moment(process: subprocess.Popen[str], chance: random.Random, kills: int) -> None:
    """Return soon after a run begins, or once it has told of one outcome or of some."""
    assert process.stdout is not None
    outcomes = chance.randrange(1, 20) if kills % 4 else 0
    for _ in range(outcomes):
        process.stdout.readline()
    time.sleep(chance.random() * (0.05 if outcomes else 0.4))


def crash(
    server: Fast,
    source: Path,
    texts: dict[str, str],
    out: Path,
    rounds: int,
    script: str = SCRIPT,
) -> None:
    """Start and kill until so many kills hit a run that was under way; check every round."""
    chance = random.Random(7)
    kills = complete = midway = 0
    while kills < rounds or not complete:
        before = finished(out)
        process = start(server.url, source, out, script=script)
        if kills < rounds:
            wait_for_a_moment(process, chance, kills)
            process.kill()
        code, errors = end(process)
        assert code in (0, -signal.SIGKILL), errors
        asked = Counter(name for name, _ in server.report()["log"])
        assert not set(before) & set(asked)
        assert finished(out)[: len(before)] == before
        kills += code != 0
        midway += 0 < len(finished(out)) < len(texts)
        if code == 0:
            complete += 1
            assert {line["key"]: line["text"] for line in lines(out)} == texts
            assert len(lines(out)) == len(texts)
            out.unlink()
    assert midway > rounds // 2


def test_killed_again_and_again(
    fast: Callable[..., Fast], pictures: Callable[[int], Path], tmp_path: Path
) -> None:
    crash(
        fast("--fail", "0.05"),
        pictures(400),
        expected(pictures(400)),
        tmp_path / "out.jsonl",
        KILLS or 25,
    )


def shards(files: list[Path], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Tars of 50 pictures."""
    texts = {}
    for number in range(0, len(files), 50):
        path = tmp_path / f"shard-{number:04}.tar"
        with tarfile.open(path, "w") as archive:
            for file in files[number : number + 50]:
                archive.add(file, file.name)
                texts[f"{path}/{file.name}"] = text_of(str(file))
    return tmp_path / "shard-*.tar", texts


def in_parquet(files: list[Path], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path / "set.parquet"
    rows = [{"image": {"bytes": file.read_bytes(), "path": "x.png"}} for file in files]
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=70)
    return path, {f"{path}#{n}": text_of(str(file)) for n, file in enumerate(files)}


def data_set(files: list[Path], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "id": [file.name for file in files],
    }
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "set")
    return tmp_path / "set", {file.name: text_of(str(file)) for file in files}


@pytest.mark.parametrize("make", [shards, in_parquet, data_set])
def test_killed_over_other_sources(
    fast: Callable[..., Fast],
    pictures: Callable[[int], Path],
    tmp_path: Path,
    make: Callable[[list[Path], Path], tuple[Path, dict[str, str]]],
) -> None:
    datasets.disable_progress_bars()
    source, texts = make(sorted(pictures(400).iterdir()), tmp_path)
    script = OF_A_DATA_SET if make is data_set else SCRIPT
    crash(fast("--fail", "0.05"), source, texts, tmp_path / "out.jsonl", KILLS or 4, script)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", [SCRIPT, IN_A_LOOP], ids=["sync", "async"])
def test_a_signal_waits_for_what_is_under_way(
    fast: Callable[..., Fast],
    pictures: Callable[[int], Path],
    tmp_path: Path,
    number: int,
    script: str,
) -> None:
    server, out = fast("--latency", "0.5"), tmp_path / "out.jsonl"
    process = start(server.url, pictures(200), out, 8, script)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.25)
    process.send_signal(number)
    code, errors = end(process)
    assert code == -number
    assert "goes on from here" in errors
    asked = Counter(name for name, _ in server.report()["log"])
    assert len(asked) < 200
    assert Counter(finished(out)) == asked
    server.set(latency=0)
    again = start(server.url, pictures(200), out, 30)
    assert end(again)[0] == 0
    assert len({line["key"] for line in lines(out)}) == len(lines(out)) == 200
    assert not set(asked) & {name for name, _ in server.report()["log"]}


def test_a_torn_line_is_cut_off(
    fast: Callable[..., Fast], pictures: Callable[[int], Path], tmp_path: Path
) -> None:
    server, out = fast(), tmp_path / "out.jsonl"
    with ivl.Client(base_url=server.url) as client:
        list(client.describe_many(pictures(5), out=out, detail=1))
        whole = out.read_bytes()
        for cut in (1, 30, len(whole.splitlines()[-1]) - 1):
            out.write_bytes(whole[:-cut])
            server.report()
            assert len(list(client.describe_many(pictures(5), out=out, detail=1))) == 1
            assert len(server.report()["log"]) == 1
            assert sorted(line["key"] for line in lines(out)) == sorted(
                map(str, pictures(5).iterdir())
            )


def test_a_full_disk_stops_at_once(
    fast: Callable[..., Fast], pictures: Callable[[int], Path], tmp_path: Path
) -> None:
    resource: Any = pytest.importorskip("resource")
    server, out = fast(), tmp_path / "out.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with (
            ivl.Client(base_url=server.url) as client,
            pytest.raises(ivl.InternVLError, match=r"out\.jsonl cannot be written: File too large"),
        ):
            list(client.describe_many(pictures(200), out=out, detail=1, concurrency=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_bytes().endswith(b"\n")
    assert len(server.report()["log"]) < 200
