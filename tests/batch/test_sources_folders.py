"""Folders as file systems have them: deep, linked, changing, with names of any bytes."""

from __future__ import annotations

import glob
import itertools
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.inputs import read
from tests.batch.conftest import make_pictures
from tests.batch.sources import found, items, keys, outcomes_of, png


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(png())


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[None]:
    """Removes what is too deep for ``shutil``, which tidies up behind pytest."""
    yield
    subprocess.run(["rm", "-rf", "--", tmp_path / "d"], check=True)


@pytest.mark.usefixtures("deep")
def test_thousands_of_nested_folders() -> None:
    depth = 2_500
    top = os.open(".", os.O_RDONLY)
    made = ["d"]
    Path("d").mkdir()
    for _ in range(depth):
        above = os.open(made[0] if len(made) == 1 else "d", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = above
        os.mkdir("d", dir_fd=top)
        made.append("d")
        if len(made) == 1_900:  # paths have 4,096 bytes at most
            os.close(os.open("x.png", os.O_CREAT, dir_fd=top))
    os.close(top)
    read_so_far = found("d")
    pictures = [key for key in read_so_far if key.endswith("x.png")]
    assert [key.count("/") for key in pictures] == [1_899]
    ((lost, reason),) = ((k, v) for k, v in read_so_far.items() if not k.endswith("x.png"))
    assert lost.count("/") > 2_000
    assert reason == "cannot be read: File name too long"
    assert len(found("d/**/*.png")) == 2


def test_links_that_lead_back() -> None:
    touch("a/b/c/1.png", "a/d/2.png", "out/3.png")
    for link, to in {
        "a/up": "..", "a/b/self": ".", "a/b/c/top": "../..", "a/d/b": "../b", "a/b/d": "../d",
        "a/d/itself": "itself", "a/out": "../out", "out/back": "../a", "a/gone": "nowhere",
    }.items():  # fmt: skip
        Path(link).symlink_to(to)
    for images in ("a", "a/**/*.png"):
        taken = set(found(images))
        assert {"a/b/c/1.png", "a/d/2.png", "a/out/3.png", "a/d/b/c/1.png", "a/b/d/2.png"} <= taken
        assert len(taken) < 40
    assert {"b/c/1.png", "up/a/d/2.png"} <= {key.removeprefix("a/") for key in found("a")}


def test_names_of_any_bytes(client: ivl.Client) -> None:
    names = [bytes([byte]) + b"\n \xff.png" for byte in range(1, 256) if byte not in b"/."]
    Path("photos").mkdir()
    for number, name in enumerate(names):
        Path(os.fsdecode(b"photos/" + name)).write_bytes(png(number))
    outcomes, error = outcomes_of(client, "photos", out="out.jsonl")
    assert error is None
    assert keys(outcomes, ok=True) == {os.fsdecode(b"photos/" + name) for name in names}
    assert not list(client.describe_many("photos", out="out.jsonl", detail=1))
    assert len(found("photos/*")) == len(names)


def test_files_that_come_and_go(client: ivl.Client) -> None:
    folder, stop = make_pictures(Path("photos"), 300), threading.Event()

    def change() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            (folder / f"new{number % 50}.png").write_bytes(png(number))
            (folder / f"new{(number + 25) % 50}.png").unlink(missing_ok=True)
            sub = folder / f"sub{number % 7}"
            sub.rmdir() if sub.exists() else sub.mkdir()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        outcomes, error = outcomes_of(client, folder)
    finally:
        stop.set()
        changing.join()
    assert error is None
    assert {f"photos/{n:06}.png" for n in range(300)} <= keys(outcomes, ok=True)
    assert all("/new" in key or "/sub" in key for key in keys(outcomes, ok=False))
    assert len({each.key for each in outcomes}) == len(outcomes)


@pytest.mark.parametrize("pattern", ["set/**/*.png", "set/*/*.png", "set/{a,b,c}/*.png"])
def test_a_folder_that_a_pattern_cannot_list(pattern: str) -> None:
    """``glob`` passes over it in silence."""
    touch("set/a/1.png", "set/b/2.png", "set/c/3.png")
    reading = read(pattern, Choice())
    first = next(reading)
    gone = Path("set/b")
    (gone / "2.png").unlink()
    gone.rename("set/.b")
    gone.symlink_to(gone)  # a loop: not even root can list it
    rest = list(reading)
    assert first not in rest
    assert first.startswith("set/")


def test_patterns_match_as_glob_does(tmp_path: Path) -> None:
    touch("x/a.png", "x/.h.png", "x/y/b.png", "x/.z/c.png", "x/y/z/d.jpg", "x[1]/e.png", "top.png")
    for pattern in (
        "*.png", "x/*", "x/*.png", "x/**", "x/**/*", "**/*.png", "x/**/z/*", "x/.*", "x/.z/*",
        "x/[ay]*", "*/*/*.png", "**", "./x/*.png", f"{tmp_path}/x/**/*.png", "x/y/../*.png",
    ):  # fmt: skip
        listed = glob.glob(pattern, recursive=True)  # noqa: PTH207 - what is compared with
        expected = {str(Path(name)) for name in listed if Path(name).is_file()}
        assert {each.key for each in items(pattern)} == expected, pattern
    assert set(found("x[1]/*.png")) == {"x[1]/e.png"}


def test_a_folder_of_shards_says_what_to_do() -> None:
    touch("set/1.tar")
    with pytest.raises(ivl.ConfigError, match=r"set holds no file with.*a glob of its shards"):
        items("set")


def test_local_trouble_is_no_failure_of_a_shard(client: ivl.Client) -> None:
    for number in range(40):
        Path(f"{number}.csv").write_text("image\nx.png\n")
    Path("x.png").write_bytes(png())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    reading = read("*.csv", Choice())
    next(reading)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        with pytest.raises(ivl.InternVLError, match="Too many open files") as caught:
            list(reading)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not isinstance(caught.value, ivl.ConfigError)
