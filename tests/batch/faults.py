"""Damages data sets at random and balances the books of each.

``python -m tests.batch.faults 2000`` makes so many, describes each and counts: what was put in is
described, or named by an error, or stands behind the place that an error names. Nothing else is
described, nothing twice, and nothing is lost in silence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import datasets

import internvl_modal as ivl
from tests.batch.conftest import QUICK, Fast
from tests.batch.fault_sources import SOURCES, Case


@dataclass
class Books:
    """What became of a data set."""

    inputs: int = 0
    described: int = 0
    failed: int = 0
    """Inputs with an error of their own."""
    behind: int = 0
    """Inputs behind a place that an error of their source names."""
    silent: list[str] = field(default_factory=list)
    sets: int = 0
    damaged: int = 0


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def zeros(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data))
    data[start : start + 40] = bytes(len(data[start : start + 40]))
    path.write_bytes(data)


def rename(path: Path, chance: random.Random) -> None:
    path.rename(path.with_name(f"{path.name}.old"))


def replace(path: Path, chance: random.Random) -> None:
    path.unlink()
    chance.choice([path.mkdir, lambda: path.symlink_to(path)])()


DAMAGES = [flip, flip, cut, cut, zeros, rename, replace]
_ROWS = re.compile(r"#(\d+)(?:-(\d+))?$")
"""A row group of Parquet that cannot be read names its rows."""


def balance(client: ivl.Client, case: Case, touched: set[str], out: Path | None) -> Books:
    """Describe a data set; what is not accounted for is ``silent``."""
    books = Books(inputs=len(case.wanted), sets=1)
    named: list[str] = []
    texts, raised = Counter[str](), False
    try:
        for outcome in client.describe_many(case.images, detail=1, out=out, **case.options):
            if outcome.ok:
                texts[outcome.key] += 1
            else:
                named.append(outcome.key)
    except (ivl.ConfigError, LookupError) as error:
        assert str(error)
        raised = True
    wanted = Counter(case.wanted)
    books.described = sum(min(texts[key], count) for key, count in wanted.items())
    strange = (texts - wanted).keys()
    if not touched:
        books.silent += [f"{key} is none of the inputs" for key in strange]
    for key, count in wanted.items():
        failed = named.count(key)
        if count > 1:
            failed += sum(each.startswith(f"{key}#") for each in named)
        books.failed += failed
        missing = count - texts[key] - failed
        said = (
            raised
            or (key in touched and (named or strange))
            or any(_tells(n, key, case) for n in named)
        )
        if missing > 0 and said:
            books.behind += missing
        elif missing != 0 and not said:
            books.silent.append(key)
    return books


def _tells(name: str, key: str, case: Case) -> bool:
    """Whether an error of this name tells of the input too: its shard, its folder, its rows."""
    rows = _ROWS.search(name)
    if rows:
        return int(rows[1]) <= case.wanted.index(key) <= int(rows[2] or rows[1])
    return key.startswith(f"{name}/")


def run(url: str, count: int, seed: int = 13) -> dict[str, Books]:
    """Damage and describe so many data sets; the books of each kind, added up."""
    total: dict[str, Books] = {}
    with ivl.Client(base_url=url, retry=QUICK) as client:
        for number in range(count):
            chance = random.Random(f"{seed} {number}")
            top = Path(tempfile.mkdtemp())
            make = SOURCES[number % len(SOURCES)]
            try:
                (top / "set").mkdir()
                case = make(top / "set", chance)
                hurt = chance.sample(case.files, min(len(case.files), chance.randrange(3)))
                whole = case.files[0].read_bytes() if case.files else b""
                for path in hurt:
                    chance.choice(DAMAGES)(path, chance)
                books = balance(
                    client, case, case.after(whole), chance.choice([None, top / "out.jsonl"])
                )
                books.damaged = bool(hurt) or not case.files
            finally:
                shutil.rmtree(top)
            if books.silent:
                print(f"data set {number} ({make.__name__}): {books.silent}", file=sys.stderr)
            _add(total.setdefault(make.__name__, Books()), books)
    return total


def _add(total: Books, books: Books) -> None:
    for each in dataclasses.fields(Books):
        setattr(total, each.name, getattr(total, each.name) + getattr(books, each.name))


def main() -> int:
    datasets.disable_progress_bars()
    server = Fast()
    with contextlib.closing(server.process.stdout):  # type: ignore[type-var]
        try:
            total = run(server.url, int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
        finally:
            server.process.kill()
            server.process.wait()
    print(
        "| source | data sets | inputs | described | failed | behind a named place | in silence |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, books in total.items():
        row = (
            books.sets,
            books.inputs,
            books.described,
            books.failed,
            books.behind,
            len(books.silent),
        )
        print(f"| {name} | " + " | ".join(f"{each:,}" for each in row) + " |")
    return any(books.silent for books in total.values())


if __name__ == "__main__":
    raise SystemExit(main())
