"""Data sets of every kind, made at random, to be damaged."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pandas
import polars
import pyarrow as arrow
from PIL import Image
from pyarrow import parquet


@dataclass
class Case:
    """One data set: what is given, the options, and its inputs in order, by key."""

    images: Any
    wanted: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    """Those that may be damaged."""
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where in the first file a row is, for text files, which have no checksums.

    The end of the line before it is part of it: without that, both are one line.
    """

    def after(self, whole: bytes) -> set[str]:
        """Drop what is no input any more; the rows that are not what they were."""
        self.wanted = [key for key in self.wanted if not self._is_gone(key)]
        if not self.spans or not self.files[0].is_file():
            return set()
        left = self.files[0].read_bytes()
        changed = [n for n, pair in enumerate(zip(whole, left, strict=False)) if len({*pair}) > 1]
        changed += [len(left)] if len(left) < len(whole) else []
        self.wanted = [key for key in self.wanted if self.spans[key][0] < len(left)]
        return {
            key
            for key in self.wanted
            if any(self.spans[key][0] - 2 <= n < self.spans[key][1] for n in changed)
        }

    def _is_gone(self, key: str) -> bool:
        """Whether a folder or glob does not hold it: renamed, or a folder of that name."""
        if not isinstance(self.images, str | Path) or self.spans or "{" in str(self.images):
            return False
        file = next(
            (each for each in self.files if key == str(each) or key.startswith(f"{each}/")), None
        )
        alone = file is None or str(self.images) == str(file)
        if alone or file is None:
            return False
        return not os.path.lexists(file) or (file.is_dir() and key == str(file))


def picture(chance: random.Random) -> bytes:
    out = io.BytesIO()
    size = (chance.randrange(1, 30), chance.randrange(1, 30))
    colour = tuple(chance.randrange(256) for _ in range(3))
    Image.new("RGB", size, colour).save(out, chance.choice(["PNG", "JPEG", "BMP"]))
    return out.getvalue()


def pictures(folder: Path, chance: random.Random) -> list[Path]:
    """Files at several depths."""
    found = []
    for number in range(chance.randrange(1, 25)):
        path = folder / chance.choice(["", "a", "a/b", "c"]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(chance))
        found.append(path)
    return found


def folder(top: Path, chance: random.Random) -> Case:
    files = pictures(top, chance)
    given = chance.choice([str(top), f"{top}/**/*.png", top])
    return Case(given, list(map(str, files)), files=files)


def lines(top: Path, chance: random.Random) -> Case:
    files = pictures(top, chance)
    names = [str(path.relative_to(top)) for path in files]
    listed = top / "list.txt"
    listed.write_text("".join(f"{name}\n" for name in names))
    return Case(
        listed, names, files=[listed, *files], spans=spans(names, [f"{n}\n" for n in names])
    )


def spans(
    keys: list[str], rows: list[str], before: int = 0, encoding: str = "utf-8"
) -> dict[str, tuple[int, int]]:
    found = {}
    for key, row in zip(keys, rows, strict=True):
        size = len(row.encode(encoding))
        found[key] = (before, before + size)
        before += size
    return found


def table(top: Path, chance: random.Random) -> Case:
    files = pictures(top, chance)
    rows = [
        {"n": n, "caption": 'say "x", y\n', "image": str(p.relative_to(top))}
        for n, p in enumerate(files)
    ]
    keys = [str(n) for n in range(len(files))]
    kind = chance.choice(["csv", "jsonl", "parquet"])
    listed, encoding = top / f"list.{kind}", "utf-8"
    texts = [""] + [f"{json.dumps(row)}\n" for row in rows]
    if kind == "csv":
        encoding = chance.choice(["utf-8", "utf-8-sig", "utf-16"])
        delimiter = chance.choice(",;\t")
        texts = [
            _line(list(rows[0]), delimiter),
            *(_line(list(row.values()), delimiter) for row in rows),
        ]
    listed.write_bytes("".join(texts).encode(encoding))
    if kind == "parquet":
        parquet.write_table(arrow.Table.from_pylist(rows), listed, write_page_checksum=True)
        return Case(listed, keys, {"key": "n"}, [listed, *files])
    places = spans(
        keys,
        texts[1:],
        len(texts[0].encode(encoding)),
        encoding.replace("16", "16-le").replace("-sig", ""),
    )
    return Case(listed, keys, {"key": "n"}, [listed, *files], places)


def _line(cells: list[Any], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerow(cells)
    return out.getvalue()


def packed(top: Path, chance: random.Random) -> Case:
    """Parquet as ``datasets`` writes it."""
    count = chance.randrange(1, 60)
    rows = [{"image": {"bytes": picture(chance), "path": f"{n % 3}.png"}} for n in range(count)]
    made = top / "set.parquet"
    parquet.write_table(
        arrow.Table.from_pylist(rows), made, row_group_size=chance.randrange(5, 30),
        write_page_checksum=True, compression=chance.choice(["none", "zstd", "snappy"]),
    )  # fmt: skip
    return Case(made, [f"{made}#{n}" for n in range(count)], files=[made])


def shards(top: Path, chance: random.Random) -> Case:
    ending, pack = chance.choice(
        [("tar", bytes), ("tar.gz", gzip.compress), ("tar.bz2", bz2.compress)]
    )
    wanted, made = [], []
    count = chance.randrange(1, 6)
    for shard in range(count):
        out, path = io.BytesIO(), top / f"shard-{shard:03}.{ending}"
        with tarfile.open(fileobj=out, mode="w") as archive:
            for number in range(chance.randrange(1, 12)):
                for name, data in ((f"{number}.png", picture(chance)), (f"{number}.json", b"{}")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                wanted.append(f"{path}/{number}.png")
        path.write_bytes(pack(out.getvalue()))
        made.append(path)
    given = chance.choice([f"{top}/*.{ending}", f"{top}/shard-{{000..{count - 1:03}}}.{ending}"])
    return Case(given if count > 1 else str(made[0]), wanted, files=made)


def held(top: Path, chance: random.Random) -> Case:
    """Data sets and frames in memory, with some pictures that are none."""
    count = chance.randrange(1, 60)
    cells: list[Any] = [{"bytes": picture(chance), "path": None} for _ in range(count)]
    for _ in range(chance.randrange(3)):
        cells[chance.randrange(count)] = chance.choice(
            [None, {"bytes": b"no picture", "path": None}]
        )
    rows = {"photo": cells, "n": [f"k{n}" for n in range(count)]}
    kind = chance.choice(
        [datasets.Dataset.from_dict, pandas.DataFrame, polars.DataFrame, arrow.table]
    )
    made = kind(rows)
    if isinstance(made, datasets.Dataset) and chance.random() < 0.5:
        made = made.to_iterable_dataset()
    return Case(made, rows["n"], {"column": "photo", "key": "n"})


def raising(top: Path, chance: random.Random) -> Case:
    """A generator that raises, or whose files do."""
    count = chance.randrange(1, 60)
    stop = chance.randrange(count)

    class File:
        def read(self, size: int = -1, /) -> bytes:
            raise chance.choice([OSError("gone"), ValueError("closed"), StopIteration()])

    def given() -> Iterator[Any]:
        for number in range(count):
            if number == stop:
                if bad:
                    yield f"k{number}", File()
                    continue
                raise LookupError(f"input {stop} cannot be had")
            yield f"k{number}", picture(chance)

    bad = chance.random() < 0.5
    return Case(given(), [f"k{n}" for n in range(count if bad else stop)])


def twice(top: Path, chance: random.Random) -> Case:
    """Keys that come again, each time with another picture."""
    keys = [f"k{chance.randrange(15)}" for _ in range(30)]
    given = []
    for number, key in enumerate(keys):
        out = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(out, "PNG")
        given.append((key, out.getvalue()))
    return Case(given, keys)


SOURCES: list[Callable[[Path, random.Random], Case]] = [
    folder, lines, table, packed, shards, held, raising, twice
]  # fmt: skip
