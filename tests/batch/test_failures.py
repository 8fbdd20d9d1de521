"""What the server fails is recorded, asked again, or ends the batch."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import internvl_modal as ivl
from internvl_modal.batch import pipeline
from internvl_modal.images import prepare
from tests.batch.conftest import QUICK, Fast, lines
from tests.loopback import Heard, Loopback, Reply, completion


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ivl.AuthenticationError), (404, ivl.RequestRejectedError)],
)
def test_what_fails_all_stops_at_once(
    client: ivl.Client,
    server: Fast,
    pictures: Callable[[int], Path],
    tmp_path: Path,
    status: int,
    error: type,
) -> None:
    seen, out = 0, tmp_path / "out.jsonl"
    with pytest.raises(error):
        for _ in client.describe_many(pictures(300), out=out, concurrency=4, detail=1):
            seen += 1
            if seen == 50:
                server.set(status=status)
    log = server.report()["log"]
    assert Counter(s for _, s in log)[status] <= 4
    assert len(lines(out)) == seen >= 50
    server.set(status=200)
    rest = list(client.describe_many(pictures(300), out=out, detail=1))
    answered = len(log) - Counter(s for _, s in log)[status]
    assert 300 <= len(rest) + answered <= 303  # three may be under way, and are given up
    assert len(lines(out)) == 300 == sum("text" in line for line in lines(out))


def test_a_server_that_is_gone_stops_it(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path]
) -> None:
    outcomes = client.describe_many(pictures(300), concurrency=4, detail=1)
    next(outcomes)
    server.process.kill()
    with pytest.raises(ivl.ServerUnavailableError, match="no answer") as caught:
        list(outcomes)
    assert "the same call goes on" not in str(caught.value)  # without out= it does not


def errors_in(out: Path) -> Counter[str]:
    return Counter(line["error"]["type"] for line in lines(out) if "error" in line)


def test_what_a_server_that_is_gone_failed_is_asked_again(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path], tmp_path: Path
) -> None:
    folder, out = pictures(60), tmp_path / "out.jsonl"
    for number in range(40):
        (folder / f"broken{number}.png").write_bytes(b"")  # says nothing of the server
    server.set(status=502)
    with pytest.raises(ivl.ServerUnavailableError, match="the same call goes on"):
        list(client.describe_many(folder, out=out, concurrency=2, detail=1))
    assert errors_in(out).keys() <= {"ImageError"}
    assert len({name for name, _ in server.report()["log"]}) < 60
    server.set(status=200)
    list(client.describe_many(folder, out=out, concurrency=2, detail=1))
    assert Counter("text" in line for line in lines(out)) == {True: 60, False: 40}


@pytest.mark.parametrize(
    ("how", "error"),
    [({"status": 500}, ivl.EngineError), ({"latency": 30}, ivl.DeadlineExceededError)],
)
def test_what_an_engine_failed_is_recorded_at_once(
    client: ivl.Client,
    server: Fast,
    pictures: Callable[[int], Path],
    how: dict[str, Any],
    error: type[ivl.ServerError],
) -> None:
    """Ten pictures that break it end a run, and not the next one."""
    folder, out = pictures(15), Path("out.jsonl")
    given: dict[str, Any] = {"out": out, "detail": 1}
    timeout = 0.2 if "latency" in how else 60
    server.set(**how)
    with pytest.raises(error, match="with retry_errors=True it asks again") as caught:
        list(client.describe_many(folder, concurrency=1, timeout=timeout, **given))
    assert caught.value.status == (500 if error is ivl.EngineError else None)
    assert errors_in(out) == {error.__name__: 10}
    outcomes = list(client.describe_many(folder, timeout=timeout, **given))
    assert [type(outcome.error) for outcome in outcomes] == [error] * 5
    server.set(status=200, latency=0)
    assert not list(client.describe_many(folder, **given))
    assert len(list(client.describe_many(folder, retry_errors=True, **given))) == 15
    assert errors_in(out) == {}


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_producer_may_wait_for_each_outcome(
    server: Fast,
    pictures: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    monkeypatch.setattr(pipeline, "SYNC_SECONDS", 0.05)
    files = sorted(pictures(3).iterdir())

    async def main() -> list[ivl.Outcome]:
        came: asyncio.Queue[ivl.Outcome] = asyncio.Queue()
        done = []

        async def live() -> AsyncIterator[Path]:
            for file in files:
                yield file
                done.append(await asyncio.wait_for(came.get(), 30))

        async with ivl.AsyncClient(base_url=server.url, retry=ivl.Retry(attempts=1)) as client:
            async for outcome in client.describe_many(live(), detail=1, timeout=0.5):
                came.put_nowait(outcome)
        return done

    server.set(status=status)
    done = asyncio.run(main())
    assert [outcome.key for outcome in done] == list(map(str, files))
    assert not any(outcome.ok for outcome in done)


def test_a_refusal_is_an_answer(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    """Never ten failures in a row: every third picture is refused."""
    loopback.will(*[Reply(500, "boom"), Reply(502, "gone"), Reply(400, "no")] * 20)
    with ivl.Client(base_url=loopback.url, retry=ivl.Retry(attempts=1)) as client:
        outcomes = list(client.describe_many(pictures(60), concurrency=1, detail=1))
    kinds = (ivl.EngineError, ivl.ServerUnavailableError, ivl.RequestRejectedError)
    assert Counter(type(outcome.error) for outcome in outcomes) == dict.fromkeys(kinds, 20)


def test_what_is_known_is_no_answer(server: Fast, pictures: Callable[[int], Path]) -> None:
    """A server that is gone is noticed though equal pictures have their description."""
    known, *others = sorted(pictures(41).iterdir())

    async def main() -> None:
        first = asyncio.Event()

        async def given() -> AsyncIterator[tuple[str, Path]]:
            yield "known", known
            await asyncio.wait_for(first.wait(), 30)
            server.set(status=502)
            for other in others:
                yield str(other), other
                yield f"as {other}", known

        async with ivl.AsyncClient(base_url=server.url, retry=QUICK) as client:
            async for _ in client.describe_many(given(), dedupe=True, concurrency=1, detail=1):
                first.set()

    with pytest.raises(ivl.ServerUnavailableError):
        asyncio.run(main())


def test_order_waits_for_no_answer(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path]
) -> None:
    """More broken files than are read ahead, after a picture that the server failed."""
    server.set(status=502)
    given = [*pictures(1).iterdir(), *(b"%d" % number for number in range(100))]
    outcomes = list(client.describe_many(given, ordered=True, concurrency=1, detail=1))
    assert [type(outcome.error) for outcome in outcomes] == [ivl.ServerUnavailableError] + [
        ivl.ImageError
    ] * 100


def test_failures_at_the_very_end_are_recorded(
    client: ivl.Client, server: Fast, pictures: Callable[[int], Path]
) -> None:
    server.set(status=502)
    outcomes = list(client.describe_many(pictures(3), out="out.jsonl", detail=1))
    assert [type(outcome.error) for outcome in outcomes] == [ivl.ServerUnavailableError] * 3
    assert len(lines(Path("out.jsonl"))) == 3


def test_a_poisoned_picture_stops_nothing(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    files = sorted(map(str, pictures(30).iterdir()))
    replies = {base64.b64encode(prepare(files[n], detail=1).payload): n for n in range(30)}

    def answer(heard: Heard) -> Reply:
        number = next(n for picture, n in replies.items() if picture in heard.body)
        return {3: Reply(500, "poison"), 5: Reply(400, "no")}.get(number, Reply(body=completion()))

    loopback.will(answer)
    with ivl.Client(base_url=loopback.url, retry=QUICK) as client:
        done = list(client.describe_many(files, concurrency=2, ordered=True, detail=1))
    assert type(done[3].error) is ivl.EngineError
    assert type(done[5].error) is ivl.RequestRejectedError
    assert sum(outcome.ok for outcome in done) == 28
    assert [outcome.attempts for outcome in done[2:6]] == [1, 3, 1, 1]


def test_raise_at_the_first_error(client: ivl.Client, tmp_path: Path) -> None:
    for _ in range(2):  # the same call asks again
        with pytest.raises(ivl.ImageError, match=r"missing\.png"):
            list(client.describe_many([tmp_path / "missing.png"], out="a.jsonl", on_error="raise"))
