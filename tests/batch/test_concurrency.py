"""The limit finds where a server saturates, backs off when told, and comes back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

import internvl_modal as ivl
from internvl_modal.batch.limiter import START, AimdLimit, Limiter, is_congestion
from tests.batch.conftest import Fast


def climb(climber: AimdLimit, slots: int, rounds: int, noise: float = 0.0) -> list[float]:
    """Share of what the server can do, round for round."""
    chance, shares = random.Random(1), []
    for _ in range(rounds):
        shares.append(min(climber.limit, slots) / slots)
        climber.round(min(climber.limit, slots) * (1 + chance.uniform(-noise, noise)))
    return shares


@pytest.mark.parametrize("slots", [1, 3, 8, 12, 16, 20, 40])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_it_finds_what_the_server_can_do(slots: int, noise: float) -> None:
    climber = AimdLimit(4, 64)
    shares = climb(climber, slots, 60, noise)
    assert mean(shares[30:]) > 0.9
    if not noise:
        assert climber.limit <= 2 * max(slots, 4)


def test_it_never_passes_the_most() -> None:
    climber = AimdLimit(4, 10)
    climb(climber, 1000, 50)
    assert climber.limit == 10


def test_it_halves_and_comes_back_after_a_storm() -> None:
    climber = AimdLimit(4, 64)
    climb(climber, 16, 20)
    before = climber.limit
    for _ in range(6):
        climber.halve()
    assert climber.limit == 1
    assert climb(climber, 16, 14)[-1] > 0.9
    assert before >= 15


def test_a_server_that_refuses_above_16() -> None:
    climber, served = AimdLimit(4, 64), []
    for _ in range(200):
        if climber.limit > 16:
            climber.halve()
        served.append(climber.limit)
        climber.round(climber.limit)
    assert mean(served[20:]) > 10


@pytest.mark.parametrize(
    ("error", "congested"),
    [
        (ivl.RateLimitedError("", status=429), True),
        (ivl.ServerUnavailableError("", status=503), True),
        (ivl.ServerUnavailableError("no connection"), True),
        (ivl.DeadlineExceededError(""), True),
        (ivl.ServerUnavailableError("", status=502), False),
        (ivl.EngineError("", status=500), False),
        (ivl.ImageError("", source="x"), False),
    ],
)
def test_what_counts_as_too_much(error: Exception, congested: bool) -> None:
    assert is_congestion(error) is congested


def test_a_storm_of_refusals_costs_no_picture(
    fast: Callable[..., Fast], pictures: Callable[[int], Path]
) -> None:
    server = fast("--latency", "0.02", "--slots", "16")
    done = 0
    with ivl.Client(base_url=server.url, retry=ivl.Retry(attempts=2, initial=0.05)) as client:
        for outcome in client.describe_many(str(pictures(600)), detail=1):
            assert outcome.ok, outcome.error
            done += 1
            if done == 200:
                server.set(status=429, retry_after="0.3", until=30)
    assert done == 600
    assert Counter(status for _, status in server.report()["log"]) == {200: 600, 429: 30}


def test_everybody_waits_when_one_is_told_to(
    fast: Callable[..., Fast], pictures: Callable[[int], Path]
) -> None:
    server = fast()
    server.set(status=429, retry_after="1", until=8)
    with ivl.Client(base_url=server.url) as client:
        done = list(client.describe_many(str(pictures(40)), detail=1, concurrency=8))
    assert all(outcome.ok for outcome in done)
    assert Counter(s for _, s in server.report()["log"]) == {429: 8, 200: 40}


@pytest.mark.parametrize(
    ("given", "first", "most"), [({"concurrency": 5}, 5, 5), ({"max_concurrency": 6}, START, 6)]
)
def test_never_more_than_told(
    fast: Callable[..., Fast],
    pictures: Callable[[int], Path],
    given: dict[str, int],
    first: int,
    most: int,
) -> None:
    server = fast("--latency", "0.01")
    server.set(together=first)
    with ivl.Client(base_url=server.url, timeout=60) as client:
        done = list(client.describe_many(str(pictures(200)), detail=1, **given))  # type: ignore[arg-type]
    assert all(outcome.ok for outcome in done)
    assert first <= server.report()["most"] <= most


def test_it_climbs_to_what_it_was_told_and_no_further() -> None:
    """While somebody always waits for a slot."""
    now = most = 0

    async def one(limiter: Limiter) -> None:
        nonlocal now, most
        async with limiter.slot():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    async def main() -> None:
        limiter = Limiter(None, 6, 0)
        await asyncio.gather(*(one(limiter) for _ in range(200)))

    asyncio.run(main())
    assert most == 6
