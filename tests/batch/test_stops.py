"""What ends a batch, and what is one picture's failure."""

from __future__ import annotations

import base64
import errno
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.batch.faults import is_fatal, local_trouble
from internvl_modal.errors import OutOfResourcesError
from internvl_modal.images import prepare
from tests.batch.conftest import QUICK, Fast, lines
from tests.loopback import Heard, Loopback, Reply, completion

FLAGGED = "requires moderation and your input was flagged"


@pytest.fixture(scope="module")
def running() -> Iterator[Fast]:
    started = Fast()
    yield started
    started.end()


@pytest.fixture
def server(running: Fast) -> Fast:
    running.set(status=200)
    return running


@pytest.fixture
def asked(loopback: Loopback) -> Iterator[ivl.Client]:
    with ivl.Client(base_url=loopback.url, retry=ivl.Retry(attempts=1)) as client:
        yield client


def refusing(files: list[str], bad: set[int], body: str, status: int = 403) -> Callable[..., Reply]:
    """Answers all but those pictures."""
    numbers = {base64.b64encode(prepare(file, detail=1).payload): n for n, file in enumerate(files)}

    def answer(heard: Heard) -> Reply:
        number = next(n for picture, n in numbers.items() if picture in heard.body)
        return Reply(status, body) if number in bad else Reply(body=completion())

    return answer


@pytest.mark.parametrize(("words", "ordered"), [(FLAGGED, False), ("no", True)])
@pytest.mark.parametrize("bad", [{0, 1, 2}, {3, 9, 20}, {28, 29}])
def test_a_picture_that_is_forbidden_stops_no_other(
    asked: ivl.Client,
    loopback: Loopback,
    pictures: Callable[[int], Path],
    words: str,
    ordered: bool,
    bad: set[int],
) -> None:
    files = sorted(map(str, pictures(30).iterdir()))
    loopback.will(refusing(files, bad, json.dumps({"error": {"code": 403, "message": words}})))
    done = list(asked.describe_many(files, out="out.jsonl", ordered=ordered, detail=1))
    failed = {files.index(outcome.key) for outcome in done if not outcome.ok}
    assert (len(done), failed) == (30, bad)
    assert len(lines(Path("out.jsonl"))) == 30
    assert not list(asked.describe_many(files, out="out.jsonl", detail=1))


def test_a_row_of_flagged_pictures_stops_nothing_where_others_were_answered(
    asked: ivl.Client, loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    files = sorted(map(str, pictures(40).iterdir()))
    loopback.will(refusing(files, set(range(5, 40)), FLAGGED))
    done = list(asked.describe_many(files, concurrency=1, detail=1))
    assert Counter(outcome.ok for outcome in done) == {True: 5, False: 35}


@pytest.mark.parametrize("words", [FLAGGED, "no"])
@pytest.mark.parametrize("count", [1, 5, 60])
@pytest.mark.parametrize("ordered", [False, True])
def test_nothing_but_403_stops_it(
    asked: ivl.Client,
    loopback: Loopback,
    pictures: Callable[[int], Path],
    words: str,
    count: int,
    ordered: bool,
) -> None:
    loopback.will(Reply(403, words))
    batch = asked.describe_many(
        pictures(count), out="out.jsonl", concurrency=1, ordered=ordered, detail=1
    )
    with pytest.raises(ivl.ServerError, match="the server answered 403"):
        list(batch)
    assert Path("out.jsonl").read_text() == ""
    assert batch.summary.failed == 0


def test_a_key_that_is_refused_from_some_moment_on(
    asked: ivl.Client, loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    files = sorted(map(str, pictures(40).iterdir()))
    loopback.will(refusing(files, set(range(5, 40)), "no"))
    with pytest.raises(ivl.AuthenticationError):
        list(asked.describe_many(files, out="out.jsonl", concurrency=1, detail=1))
    assert len(lines(Path("out.jsonl"))) == 5


@pytest.mark.parametrize("status", [401, 402, 404, 410])
def test_key_credit_and_model_stop_it_at_once(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path], status: int
) -> None:
    list(client.describe_many(pictures(3), out="out.jsonl", detail=1))
    server.report()
    server.set(status=status)
    with pytest.raises(ivl.ServerError, match=str(status)):
        list(client.describe_many(pictures(50), out="out.jsonl", concurrency=2, detail=1))
    assert len(server.report()["log"]) <= 2
    assert len(lines(Path("out.jsonl"))) == 3


@pytest.mark.parametrize("status", [301, 302])
def test_a_server_that_has_moved_stops_it_at_once(
    asked: ivl.Client, loopback: Loopback, pictures: Callable[[int], Path], status: int
) -> None:
    loopback.will(Reply(status, headers={"location": "http://127.0.0.1:9/v1/chat/completions"}))
    with pytest.raises(ivl.RequestRejectedError, match="redirects to") as caught:
        list(asked.describe_many(pictures(5), out="out.jsonl", concurrency=1, detail=1))
    assert "base_url='http://127.0.0.1:9/v1'" in caught.value.hint
    assert Path("out.jsonl").read_text() == ""


def test_quota_within_a_429_is_no_credit(
    asked: ivl.Client, loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    document = {"error": {"type": "insufficient_quota", "message": "You exceeded your quota"}}
    loopback.will(Reply(429, json.dumps(document)))
    with pytest.raises(ivl.RequestRejectedError, match="429"):
        list(asked.describe_many(pictures(5), out="out.jsonl", detail=1))
    assert Path("out.jsonl").read_text() == ""


@pytest.mark.parametrize("page", ["<html>Log in</html>", '{"choices": []}', "[]"])
def test_a_page_in_place_of_every_answer_stops_it(
    asked: ivl.Client, loopback: Loopback, pictures: Callable[[int], Path], page: str
) -> None:
    loopback.will(Reply(body=page))
    with pytest.raises(ivl.ServerError, match=r"with .* the same call goes on"):
        list(asked.describe_many(pictures(40), out="out.jsonl", concurrency=2, detail=1))
    assert len(lines(Path("out.jsonl"))) < 15


class Troubled:
    """A file that cannot be read: says why."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def read(self, size: int = -1, /) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [OSError(number, os.strerror(number)) for number in
     (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)]
    + [MemoryError(), RuntimeError("can't start new thread"), OutOfResourcesError("no memory")],
    ids=repr,
)  # fmt: skip
def test_local_trouble_is_no_pictures_failure(
    client: ivl.Client, pictures: Callable[[int], Path], error: BaseException
) -> None:
    given = [*pictures(3).iterdir(), ("troubled", Troubled(error))]
    with pytest.raises(OutOfResourcesError, match="the same call goes on") as caught:
        list(client.describe_many(given, out="out.jsonl", detail=1))
    assert caught.value.__cause__ is not None
    assert not any("error" in line for line in lines(Path("out.jsonl")))
    good = [*pictures(3).iterdir(), ("troubled", next(pictures(4).glob("*3.png")))]
    list(client.describe_many(good, out="out.jsonl", detail=1))
    assert len(lines(Path("out.jsonl"))) == 4


@pytest.mark.parametrize("lack", [MemoryError(), RuntimeError("can't start new thread")], ids=repr)
def test_what_is_short_for_a_while_is_waited_for(
    client: ivl.Client, pictures: Callable[[int], Path], lack: Exception
) -> None:
    class Short(Troubled):
        """Twice there is too little."""

        left = 2

        def read(self, size: int = -1, /) -> bytes:
            self.left -= 1
            if self.left >= 0:
                raise self.error
            return next(pictures(4).glob("*3.png")).read_bytes()

    given = [*pictures(3).iterdir(), ("short", Short(lack))]
    assert [outcome.ok for outcome in client.describe_many(given, detail=1)] == [True] * 4


def test_threads_that_cannot_start_for_a_while_are_waited_for(
    client: ivl.Client, pictures: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, left = threading.Thread.start, [None] * 2

    def none_left(thread: threading.Thread) -> None:
        if thread.name.startswith("internvl-prepare") and left:
            left.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    outcomes = list(client.describe_many(pictures(100), detail=1))
    assert [outcome.ok for outcome in outcomes] == [True] * 100
    assert not left


def test_a_picture_on_a_damaged_disk_is_its_own_failure(
    client: ivl.Client, pictures: Callable[[int], Path]
) -> None:
    given = [*pictures(3).iterdir(), Troubled(OSError(errno.EIO, "Input/output error"))]
    assert [outcome.ok for outcome in client.describe_many(given, ordered=True, detail=1)] == [
        True, True, True, False,
    ]  # fmt: skip


def test_what_an_error_came_of_may_come_of_itself() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert local_trouble(first) is None
    assert not is_fatal(first)


CODE = """
import sys, internvl_modal as ivl
with ivl.Client(base_url=sys.argv[1]) as client:
    try:
        list(client.describe_many(sys.argv[2], out=sys.argv[3], progress=False, detail=1))
    except ivl.InternVLError as error:
        raise SystemExit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs ulimit")
@pytest.mark.parametrize("descriptors", [20, 26])
def test_too_few_descriptors_cost_no_picture(
    server: Fast, pictures: Callable[[int], Path], descriptors: int
) -> None:
    folder, out = pictures(60), Path("out.jsonl")
    run = [sys.executable, "-c", CODE, server.url, str(folder), str(out)]
    for limit in (descriptors, 1000):
        shell = ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "x", *run]
        done = subprocess.run(shell, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1)
        assert all("text" in line for line in (lines(out) if out.exists() else ()))
    assert done.returncode == 0
    assert len(lines(out)) == 60


RAISED = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), pytest.fail.Exception("no")]


@pytest.mark.parametrize("where", ["out", "progress"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_is_no_exception_is_raised(
    client: ivl.Client,
    pictures: Callable[[int], Path],
    where: str,
    error: BaseException,
) -> None:
    def call(_: object) -> None:
        raise error

    batch = client.describe_many(pictures(20), detail=1, **{where: call})  # type: ignore[arg-type]
    with pytest.raises(type(error)) as caught:
        list(batch)
    assert str(caught.value) == str(error)
    assert next(iter(client.describe_many(pictures(1), detail=1))).ok


@pytest.mark.parametrize("where", ["out", "progress"])
@pytest.mark.parametrize("raised", ["SystemExit('3')", "pytest.fail.Exception('3')"])
def test_what_is_no_exception_is_raised_where_it_is_awaited(
    server: Fast, pictures: Callable[[int], Path], where: str, raised: str
) -> None:
    code = f"""
import asyncio, sys, internvl_modal as ivl
import pytest
def call(_):
    raise {raised}
async def main():
    async with ivl.AsyncClient(base_url=sys.argv[1]) as client:
        async for _ in client.describe_many(sys.argv[2], detail=1, {where}=call):
            pass
try:
    asyncio.run(main())
except {raised.partition("(")[0]} as error:
    print("raised", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, server.url, str(pictures(3))],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "raised 3", done.stderr


def test_a_disk_that_is_full_stops_it(server: Fast, pictures: Callable[[int], Path]) -> None:
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)); import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN){CODE}"
    folder, out = pictures(30), Path("out.jsonl")
    run = [sys.executable, "-c", code, server.url, str(folder), str(out)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "out.jsonl cannot be written: File too large" in done.stderr
    assert all("text" in line for line in lines(out))
    with ivl.Client(base_url=server.url, retry=QUICK) as client:
        list(client.describe_many(folder, out=out, detail=1))
    assert len(lines(out)) == 30
