"""Tars: read to their end, damage told, and no shard holds up another."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.batch.sources.inputs import read
from internvl_modal.batch.sources.tars import read_tar
from internvl_modal.batch.sources.unreadable import readable
from internvl_modal.errors import OutOfResourcesError
from tests.batch.conftest import Fast, lines
from tests.batch.sources import SIX, found, items, keys, outcomes_of, png, tar, until_it_raises


def test_one_bit_of_a_header() -> None:
    data, starts = tar()
    for place in (2, 100, 150, 300):
        damaged = bytearray(data)
        damaged[starts[3] + place] ^= 1
        Path("a.tar").write_bytes(damaged)
        before, error = until_it_raises("a.tar")
        assert before == {f"a.tar/{n}.png": png(n) for n in range(3)}
        assert error.startswith("a.tar is damaged: no header where its next member should be")


def test_cut_anywhere() -> None:
    data, starts = tar()
    end = starts[-1] + 1024
    for size in (0, 1, 511, 512, 700, starts[2], starts[2] + 7, starts[2] + 600, end - 1, end):
        Path("a.tar").write_bytes(data[:size])
        before, error = until_it_raises("a.tar")
        assert error.startswith("a.tar is damaged: ")
        whole = sum(start + 512 + len(png()) <= size for start in starts)
        assert len(before) in (whole, whole - 1)
    for size in (end + 512, end + 1024, len(data) + 512):  # whole
        Path("a.tar").write_bytes(data.ljust(size, b"\0")[:size])
        assert len(items("a.tar")) == 6


def test_more_behind_the_end_marker() -> None:
    Path("a.tar").write_bytes(tar()[0] + tar(("6.png",))[0])
    before, error = until_it_raises("a.tar")
    assert len(before) == 6
    assert "more follows its end marker" in error


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_packed_ones_are_checked_to_the_trailer(pack: Callable[[bytes], bytes], name: str) -> None:
    """Whatever the name says: the content tells how it is packed."""
    data = pack(tar()[0])
    Path(name).write_bytes(data)
    assert len(items(name)) == 6
    for damaged in (data[:-1], data[: len(data) // 2], data[:-6] + b"\0\1\2" + data[-3:], data[:9]):
        Path(name).write_bytes(damaged)
        before, error = until_it_raises(name)
        assert error.startswith(f"{name} is damaged: ")
        assert set(before) <= {f"{name}/{each}" for each in SIX}


def test_what_is_no_picture() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("./a.png", "._a.png", "x/._b.png", ".c/d.png", "x/.DS_Store", "e.json"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"data"))
        for name, kind in (
            ("d.png", tarfile.DIRTYPE),
            ("l.png", tarfile.LNKTYPE),
            ("s.png", tarfile.SYMTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png"
            archive.addfile(member)
    Path("mac.tar").write_bytes(out.getvalue())
    link = "is a link or a device, which holds no picture"
    assert found("mac.tar") == {
        "mac.tar/./a.png": b"data", "mac.tar/l.png": link, "mac.tar/s.png": link,
    }  # fmt: skip


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_of_any_bytes(format: int) -> None:
    names = ("deep/" * 20 + "a.png", "\udcff\udcfe.png", "ä.png", "x\ny.png")
    Path("a.tar").write_bytes(tar(names, format=format)[0])
    assert set(found("a.tar")) == {f"a.tar/{name}" for name in names}


def test_braces_and_globs(client: ivl.Client) -> None:
    for number in range(11):
        Path(f"shard-{number:03}.tar").write_bytes(tar((f"{number}.png",))[0])
    everything = {f"shard-{number:03}.tar/{number}.png" for number in range(11)}
    assert set(found("shard-{000..010}.tar")) == set(found("shard-*.tar")) == everything
    assert len(found("shard-{000..010..5}.tar")) == 3
    assert len(found("shard-00{1,2}.tar")) == len(found("{shard,none}-00{1,2}.tar")) - 2 == 2
    assert len(found("shard-{000..004}*.tar")) == 5
    missing = found("shard-{009..011}.tar")["shard-011.tar"]
    assert missing == "cannot be read: No such file or directory"


def test_a_damaged_shard_holds_up_nothing(client: ivl.Client, server: Fast, tmp_path: Path) -> None:
    """Nor does the next run begin anew, nor one after the shard is mended."""
    starts = tar()[1]
    for number in range(3):
        Path(f"{number}.tar").write_bytes(tar(tuple(f"{number}-{n}.png" for n in range(6)))[0])
    good = Path("1.tar").read_bytes()
    bad = bytearray(good)
    bad[starts[2]] ^= 1
    Path("1.tar").write_bytes(bad)
    outcomes, error = outcomes_of(client, "{0..2}.tar", out="out.jsonl")
    assert error is None
    assert len(keys(outcomes, ok=True)) == 14
    assert keys(outcomes, ok=False) == {"1.tar"}
    assert "is damaged" in str(next(each.error for each in outcomes if not each.ok))
    server.report()
    again = client.describe_many("{0..2}.tar", detail=1, out="out.jsonl")
    assert not list(again)
    assert again.summary.failed_before == 1  # the command exits with 1
    assert not server.report()["log"]
    Path("1.tar").write_bytes(good)
    rest, _ = outcomes_of(client, "{0..2}.tar", out="out.jsonl", retry_errors=True)
    assert keys(rest, ok=True) == {f"1.tar/1-{n}.png" for n in range(2, 6)}
    assert len(lines(Path("out.jsonl"))) == 18


def test_a_shard_of_nothing_is_told_of_where_a_shard_was_meant() -> None:
    """Of zeros, as a crash leaves a file that was being written, or without a picture in it."""
    for number in range(3):
        Path(f"s-{number}.tar").write_bytes(tar((f"{number}.png",))[0])
    Path("s-1.tar").write_bytes(bytes(20_480))
    Path("s-3.tar").write_bytes(tar(("notes.txt",))[0])
    for pattern in ("s-{0..3}.tar", "s-*.tar", "*.tar"):
        lost = {key: why for key, why in found(pattern).items() if isinstance(why, str)}
        assert lost == dict.fromkeys(
            ("s-1.tar", "s-3.tar"), "holds no file with a picture's ending"
        )
    assert set(found("s-*")) == {"s-0.tar/0.png", "s-2.tar/2.png"}


def test_the_only_shard_is_described_before_its_error(client: ivl.Client) -> None:
    data, starts = tar()
    Path("a.tar").write_bytes(data[: starts[4]])
    outcomes, error = outcomes_of(client, "a.tar", out="out.jsonl")
    assert isinstance(error, ivl.ConfigError)
    assert "a.tar is damaged: it was cut" in str(error)
    assert len(keys(outcomes, ok=True)) == 4 == len(lines(Path("out.jsonl")))


def test_ten_thousand_shards() -> None:
    data = tar(("0.png",))[0]
    for number in range(10_000):
        Path(f"{number:05}.tar").write_bytes(data)
    assert len(items("{00000..09999}.tar")) == len(items("*.tar")) == 10_000


def test_members_of_one_name(client: ivl.Client) -> None:
    Path("a.tar").write_bytes(tar(("0.png", "0.png"))[0])
    outcomes, _ = outcomes_of(client, "a.tar", ordered=True)
    assert [each.ok for each in outcomes] == [True, False]
    assert "two pictures have the key a.tar/0.png" in str(outcomes[1].error)


def test_memory_does_not_grow_with_the_members() -> None:
    Path("a.tar").write_bytes(tar(tuple(f"{n}.png" for n in range(20_000)))[0])
    tracemalloc.start()
    assert sum(1 for _ in read("a.tar", Choice())) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("cut", [3_900, 5_200, 9_000])
def test_what_is_before_a_cut_is_given(cut: int) -> None:
    """Reading by more than a block loses it: what unpacks raises, and drops what it has."""
    Path("a.tar.gz").write_bytes(gzip.compress(tar()[0], 0)[:cut])
    before, error = until_it_raises("a.tar.gz")
    assert error.startswith("a.tar.gz is damaged: ")
    whole = (cut - 20) // 1024
    assert list(before)[:whole] == [f"a.tar.gz/{name}" for name in SIX[:whole]]


class Trouble(io.RawIOBase):
    """A file on a machine that has run out."""

    name = "x.tar"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        with readable(self.name):
            yield io.BufferedReader(self)

    def resolve(self, text: str) -> str:
        return text

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), MemoryError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfResourcesError),
        (OSError(errno.EIO, "Input/output error"), ivl.ConfigError),
    ],
)
def test_what_the_system_says_of_a_tar(error: BaseException, expected: type[BaseException]) -> None:
    """This machine's trouble is no damage."""
    with pytest.raises(expected) as caught:
        list(read_tar(Trouble(error), is_picture))
    assert type(caught.value) is expected
