"""Whatever stands at a name that can be guessed: nothing is written through it, nobody waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.batch.sinks.remote import RemoteParts
from internvl_modal.reports.comparison import compare
from internvl_modal.reports.gallery import write_gallery
from tests.batch.conftest import lines
from tests.loopback import Loopback

OUTSIDE = Path("outside")
NAMES = {
    "out.jsonl": [".out.jsonl.new"],
    "texts/": [
        *("texts/.internvl-modal.jsonl", "texts/..internvl-modal.jsonl.new"),
        *("texts/k.txt", "texts/.k.txt.new"),
    ],
    "out.parquet": [
        *("out.parquet/.journal.jsonl", "out.parquet/..journal.jsonl.new"),
        *("out.parquet/part-00000.parquet", "out.parquet/.part-00000.parquet.new"),
    ],
    "out.csv": ["out.csv", ".out.csv.new", ".out.csv.journal.jsonl"],
    "metadata.jsonl": ["metadata.jsonl", ".metadata.jsonl.new"],
    "out.dataset": ["out.dataset", ".out.dataset.new", ".out.dataset.old"],
    "s-%06d.tar": ["s-000000.tar", ".s-000000.tar.open", ".s-shards.journal.jsonl"],
}
PAIRS = [(out, name) for out, names in NAMES.items() for name in names]


def link(path: Path) -> None:
    path.symlink_to((OUTSIDE / "victim").resolve())


def dead_link(path: Path) -> None:
    path.symlink_to((OUTSIDE / "new").resolve())


def link_to_a_folder(path: Path) -> None:
    path.symlink_to((OUTSIDE / "folder").resolve())


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("mine")


KINDS = [link, dead_link, link_to_a_folder, link_to_itself, pipe, folder]


@pytest.fixture
def client(loopback: Loopback) -> Iterator[ivl.Client]:
    known = ivl.Capabilities("vllm")
    with ivl.Client(base_url=loopback.url, model="m", capabilities=known) as made:
        yield made


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def trap(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """Puts something where a name is; in the end nothing beyond it may have changed."""
    OUTSIDE.mkdir()
    (OUTSIDE / "victim").write_text("PRECIOUS")
    (OUTSIDE / "folder").mkdir()
    (OUTSIDE / "folder" / "kept").write_text("PRECIOUS")

    def put(name: str) -> None:
        Path(name).parent.mkdir(exist_ok=True)
        request.param(Path(name))

    yield put
    there = {
        str(path.relative_to(OUTSIDE)): path.read_text()
        for path in OUTSIDE.rglob("*")
        if path.is_file()
    }
    assert there == {"victim": "PRECIOUS", "folder/kept": "PRECIOUS"}


@pytest.mark.parametrize(("out", "name"), PAIRS, ids=[name for _, name in PAIRS])
def test_an_output(
    client: ivl.Client,
    pictures: Callable[[int], Path],
    trap: Callable[[str], None],
    out: str,
    name: str,
) -> None:
    if out == "out.dataset":
        pytest.importorskip("datasets", reason="pip install 'internvl-modal[datasets]'")
    trap(name)
    picture = next(pictures(1).iterdir()).rename("k.png")
    for anew in ({}, {"retry_errors": True}, {"resume": False}):
        with suppress(ivl.ConfigError):
            given = [("k.png", picture), ("broken", b"")]
            list(client.describe_many(given, out=out, detail=1, **anew))  # type: ignore[arg-type]


def test_parts_at_an_address_of_this_machine(
    client: ivl.Client, pictures: Callable[[int], Path], trap: Callable[[str], None]
) -> None:
    trap("out.jsonl/part-00000-01234567.jsonl")
    (OUTSIDE / "victim").write_text('{"key": "k", "error": {}, "run": "r"}\n')
    sink = RemoteParts(f"file://{Path('out.jsonl').resolve()}", resume=True, retry_errors=True)
    sink.open("r")
    sink.close()
    assert (OUTSIDE / "victim").read_text().startswith('{"key": "k"')
    (OUTSIDE / "victim").write_text("PRECIOUS")


@pytest.mark.parametrize("name", ["out.html", ".out.html.new"])
def test_a_gallery(
    client: ivl.Client, pictures: Callable[[int], Path], trap: Callable[[str], None], name: str
) -> None:
    list(client.describe_many(pictures(1), out="out.jsonl", detail=1))
    trap(name)
    with suppress(ivl.ConfigError):
        write_gallery("out.jsonl")


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", ".a.jsonl.new", "comparison.json", ".comparison.json.new", "comparison.html"],
)
def test_a_comparison(
    loopback: Loopback,
    pictures: Callable[[int], Path],
    trap: Callable[[str], None],
    name: str,
) -> None:
    trap(f"compared/{name}")
    with (
        ivl.Client(base_url=loopback.url) as one,
        ivl.Client(base_url=loopback.url) as other,
        suppress(ivl.ConfigError),
    ):
        compare(pictures(1), {"a": one, "b": other}, out="compared", detail=1)


@pytest.mark.parametrize("kind", [dead_link, pipe])
def test_a_file_of_the_command(
    loopback: Loopback, pictures: Callable[[int], Path], kind: Callable[[Path], None]
) -> None:
    OUTSIDE.mkdir()
    kind(Path(".said.jsonl.part"))
    command = ["describe", next(pictures(1).iterdir()), "--json", "--out", "said.jsonl"]
    subprocess.run(
        [sys.executable, "-m", "internvl_modal", *command, "--base-url", loopback.url],
        check=True,
        timeout=60,
    )
    assert not list(OUTSIDE.iterdir())
    assert len(lines(Path("said.jsonl"))) == 1
