"""Every input gets its outcome, whatever it is and whatever is wrong with it."""

from __future__ import annotations

import asyncio
import re
import tarfile
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.backends.endpoint import EndpointBackend
from internvl_modal.batch.limiter import Limiter
from internvl_modal.batch.options import Job
from internvl_modal.batch.pipeline import InFlight
from internvl_modal.batch.requests import Requester
from internvl_modal.batch.sources import keys as source_keys
from internvl_modal.batch.sources.keys import item
from internvl_modal.flows.core import Core
from internvl_modal.schema.inputs import ImageSource
from internvl_modal.transport.aio import AsyncTransport
from tests.batch.conftest import QUICK, Fast, lines
from tests.loopback import Loopback, Reply, completion


def test_a_folder_with_broken_files(
    client: ivl.Client, pictures: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = pictures(40)
    for number in range(8):
        (folder / f"broken{number}.jpg").write_bytes(
            [b"", b"\xff\xd8\xff\xe0", b"<html>"][number % 3]
        )
    (folder / "notes.txt").write_text("not a picture")
    out = tmp_path / "out.jsonl"
    outcomes = list(client.describe_many(folder, out=out, detail=1))
    assert Counter(outcome.ok for outcome in outcomes) == {True: 40, False: 8}
    for outcome in outcomes:
        assert (outcome.error is None) == outcome.ok == outcome.key.endswith(".png")
        assert outcome.ok or "broken" in str(outcome.error)
        assert outcome.source == outcome.key
        assert outcome.attempts == outcome.ok
    written = {line["key"]: line for line in lines(out)}
    assert written.keys() == {outcome.key for outcome in outcomes}
    bad = written[str(folder / "broken2.jpg")]["error"]
    assert bad == {
        "type": "ImageError",
        "message": f"{folder}/broken2.jpg: a web page, not a picture",
    }
    good = written[str(folder / "000000.png")]
    assert good["usage"] == {"prompt_tokens": 5000, "completion_tokens": 3}
    assert good["finish_reason"] == "stop"


def test_every_kind_of_source_in_one_batch(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    path = pictures(1) / "000000.png"
    given: list[ImageSource | tuple[str, ImageSource]] = [
        str(path), path, path.read_bytes(), Image.new("RGB", (9, 9)), np.zeros((9, 9, 3), np.uint8),
        ("named", path), path.open("rb"), None, 3,  # type: ignore[list-item]
    ]  # fmt: skip
    outcomes = list(client.describe_many(given, ordered=True, detail=1))
    keys = [str(path), str(path), "#2", "#3", "#4", "named", "#6", "#7", "#8"]
    assert [outcome.key for outcome in outcomes] == keys
    assert [outcome.ok for outcome in outcomes] == [True] * 7 + [False] * 2
    assert "NoneType" in str(outcomes[7].error)
    given[6].close()  # type: ignore[union-attr]


def test_in_order_though_the_first_is_the_slowest(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    gate = threading.Event()

    def slow(_: object) -> Reply:
        gate.wait(10)
        return Reply(body=completion("slow"))

    loopback.will(slow, Reply(body=completion("fast")))
    files = sorted(map(str, pictures(12).iterdir()))
    seen = []
    with ivl.Client(base_url=loopback.url) as client:
        threading.Timer(0.5, gate.set).start()
        for outcome in client.describe_many(files, ordered=True, concurrency=4, detail=1):
            seen.append(outcome.key)
    assert seen == files


def test_nothing_is_read_far_ahead(client: ivl.Client, pictures: Callable[[int], Path]) -> None:
    file, read = str(next(pictures(1).iterdir())), []

    def endless() -> Iterator[tuple[str, str]]:
        while True:
            read.append(len(read))
            yield f"{len(read)}", file

    outcomes = client.describe_many(endless(), concurrency=2, detail=1)
    taken = [next(outcomes) for _ in range(3)]
    threading.Event().wait(0.5)
    assert len(taken) == 3
    assert len(read) < 3 + 64 + 64
    outcomes.close()  # type: ignore[attr-defined]
    stopped = len(read)
    threading.Event().wait(0.1)
    assert len(read) <= stopped + 64


def test_for_async_callers(server: Fast, pictures: Callable[[int], Path]) -> None:
    async def paths() -> AsyncIterator[Path]:
        for path in sorted(pictures(30).iterdir()):
            await asyncio.sleep(0)
            yield path

    async def main() -> list[ivl.Outcome]:
        async with ivl.AsyncClient(base_url=server.url) as client:
            return [outcome async for outcome in client.describe_many(paths(), detail=1)]

    assert sum(outcome.ok for outcome in asyncio.run(main())) == 30


def test_module_level_inside_a_running_loop(server: Fast, pictures: Callable[[int], Path]) -> None:
    async def cell() -> int:
        return sum(o.ok for o in ivl.describe_many(pictures(10), backend=server.url, detail=1))

    assert asyncio.run(cell()) == 10


def test_with_a_client_of_the_users_own(server: Fast, pictures: Callable[[int], Path]) -> None:
    asked = []
    with httpx.Client(event_hooks={"request": [asked.append]}) as own:
        server.set(together=30)
        client = ivl.Client(base_url=server.url, http_client=own, timeout=60)
        outcomes = list(client.describe_many(pictures(90), concurrency=30, detail=1))
        assert all(outcome.ok for outcome in outcomes)
    assert len(outcomes) == 90
    assert [each.method for each in asked].count("POST") == 90
    assert server.report()["most"] == 30


def test_leaving_the_loop_ends_the_batch(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path]
) -> None:
    before = threading.active_count()
    deadline = time.monotonic() + 30
    for _ in client.describe_many(pictures(300), concurrency=2, detail=1):
        break
    assert len(server.report()["log"]) < 300
    assert not [t for t in threading.enumerate() if t.name == "internvl-batch"]
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # they have been told to end, and are not waited for
    assert threading.active_count() <= before


def test_a_row_without_a_picture_is_that_rows_failure(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    manifest = pictures(2) / "list.jsonl"
    manifest.write_text('{"image": "000000.png"}\n{"image": []}\n{"image": "000001.png"}\n')
    outcomes = list(client.describe_many(manifest, ordered=True, detail=1))
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, ivl.ImageError)
    assert str(outcomes[1].error) == f"{manifest}#1: holds no picture"


def test_an_answer_that_has_arrived_counts_as_under_way(
    server: Fast, pictures: Callable[[int], Path]
) -> None:
    """Until it is recorded: what is not under way is dropped when a batch is stopped."""

    async def main() -> bool:
        transport = AsyncTransport(None, QUICK)
        core = Core(EndpointBackend(server.url), model=None, timeout=30)
        job = Job.parse(None, {"detail": 1})
        with ThreadPoolExecutor(1) as threads:
            requester = Requester(core, transport.send, QUICK, job, threads)
            requester.limiter = Limiter(1, 1, 1)
            ticket = InFlight(0, item(next(pictures(1).iterdir()), 0))
            await requester.describe(ticket, asyncio.Event())
        await transport.close()
        return ticket.sending

    assert asyncio.run(main())


def test_an_iterator_that_fails_is_the_callers_own_error(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    def broken() -> Iterator[Path]:
        yield from pictures(1).iterdir()
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        list(client.describe_many(broken(), detail=1))


class DataFrame:
    """Iterates over the names of its columns, as those of pandas and polars do."""

    columns = ("path",)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("folder-that-is-not-there", {}, "does not exist"),
        ("*.nothing", {}, "nothing matches"),
        (b"bytes", {}, "not many pictures"),
        (3, {}, "not many pictures"),
        ([], {"concurrency": 0}, "concurrency"),
        ([], {"concurrency": "many"}, "concurrency"),
        ([], {"max_concurrency": 0}, "max_concurrency"),
        ([], {"temperature": 9}, "temperature"),
        ([], {"unknown": 9}, "unknown"),
        ([], {"concurrency": "many"}, r"docs/batches\.md lists the options"),
        ([], {"out": "captions.xlsx"}, r"says no format.*\.csv, \.dataset, -%06d\.tar"),
        ([], {"out": Path("texts/")}, "says no format.*a Path loses its /, so"),
        ("", {}, "'' does not exist"),
        ([], {"column": "path"}, "has no columns"),
        ({}, {"column": "path"}, "has no columns"),
        ("list.txt", {"column": "path"}, "has no columns"),
        (".", {"column": "path"}, "has no columns"),
        (".", {}, r"\. holds no file with a picture's ending"),
        ("*.dat", {}, r"\*\.dat holds no file with a picture's ending"),
        ("empty.tar", {}, r"empty\.tar holds no file with a picture's ending"),
        ("x.dat", {}, r"x\.dat is no picture by its ending.*manifest: \.txt, \.jsonl, \.csv"),
        (DataFrame(), {}, r"a DataFrame is not.*df\['path'\]"),
        ([], {"out": 3}, "out is a int"),
    ],
)
def test_wrong_use(
    client: ivl.Client, images: object, options: dict[str, object], message: str
) -> None:
    Path("x.dat").touch()
    tarfile.open("empty.tar", "w").close()
    with pytest.raises(ivl.ConfigError, match=message):
        list(client.describe_many(images, **options))  # type: ignore[arg-type]


class OddFile(BytesIO):
    """As ``mmap`` is in some Pythons: seeking tells nothing."""

    def seek(self, *where: int) -> None:  # type: ignore[override]
        super().seek(*where)


def in_memory(path: Path) -> list[Any]:
    """One picture in every form without a name."""
    data = path.read_bytes()
    url = f"data:image/png;base64,{b64encode(data).decode()}"
    image, flat = Image.open(path), Image.new("P", (9, 9))
    flat.putpalette(list(data[-60:]))
    return [
        data, BytesIO(data), OddFile(data), image, np.array(image), [path, data], [path, path],
        url, flat, np.full((9, 11 + len(path.name) % 2, 3), data[-30], np.uint8),
    ]  # fmt: skip


def test_pictures_in_memory_are_known_by_their_content(
    client: ivl.Client, pictures: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another list into the same file is no repetition; what is no picture fails once."""
    monkeypatch.setattr(source_keys, "BAND", 4)
    one, two = pictures(2).iterdir()
    given, others = in_memory(one), in_memory(two)
    bad = [None, float("nan"), b"no picture"]
    found = [
        list(client.describe_many(each, out="o.jsonl", detail=1))
        for each in ([*given, *bad], others)
    ]
    assert [[outcome.error for outcome in outcomes if outcome.ok] for outcomes in found] == [
        [None] * 10
    ] * 2
    assert [len(outcomes) for outcomes in found] == [13, 10]
    for again in (given, others):
        again[1:3] = in_memory(one if again is given else two)[1:3]
        assert not list(client.describe_many(again, out="o.jsonl", detail=1))
    keys = sorted(line["key"] for line in lines(Path("o.jsonl")))
    assert re.fullmatch("#0-[0-9a-f]{12}", keys[0])
    assert {"#10", "#11"} < set(keys)
    assert len(set(keys)) == 23


def test_a_picture_that_is_too_large_is_not_decoded_to_be_known(
    client: ivl.Client, tmp_path: Path
) -> None:
    Image.new("L", (300, 300)).save(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as image:
        (outcome,) = client.describe_many([image], out="o.jsonl", detail=1, max_pixels=80_000)
        assert image.fp is not None, "it was not loaded"
    assert outcome.key == "#0"
    assert "300x300" in str(outcome.error).replace(" x ", "x")


def test_equal_bytes_are_described_once(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path]
) -> None:
    files = sorted(pictures(10).iterdir()) * 5
    given = [(f"{number}", path) for number, path in enumerate(files)]
    outcomes = list(client.describe_many(given, dedupe=True, ordered=True, detail=1))
    assert len(server.report()["log"]) == 10
    assert [outcome.text for outcome in outcomes[:10]] == [
        outcome.text for outcome in outcomes[40:]
    ]
    assert Counter(outcome.attempts for outcome in outcomes) == {1: 10, 0: 40}


def test_equal_answers_that_are_no_unicode(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    loopback.will(Reply(body=completion("half \ud83d")))
    given = [(f"{number}", next(pictures(1).iterdir())) for number in range(3)]
    with ivl.Client(base_url=loopback.url) as client:
        outcomes = list(client.describe_many(given, dedupe=True, detail=1))
    assert [outcome.text for outcome in outcomes] == ["half \ud83d"] * 3
    assert len(loopback.chats) == 1


def test_answers_that_cannot_be_kept_are_asked_for_again(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path]
) -> None:
    resource: Any = pytest.importorskip("resource")
    given = [(f"{number}", next(pictures(1).iterdir())) for number in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        outcomes = list(client.describe_many(given, dedupe=True, detail=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [outcome.ok for outcome in outcomes] == [True] * 3
    assert len(server.report()["log"]) == 3
