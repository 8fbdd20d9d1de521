"""Who shrinks the pictures of a batch, by what was measured; and a server that takes no large ones."""

from __future__ import annotations

import heapq
import re
from collections import deque
from io import BytesIO

import pybase64
import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.batch.shrinking import ROUND, Share, Shrinking
from internvl_modal.schema.options import DescribeOptions
from tests.loopback import Heard, Loopback, Reply, completion


def simulated(
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    *,
    share: float | None = None,
    line: float = 1e9,
    count: int = 10_000,
    later: int | None = None,
) -> list[float]:
    """When each answer of a batch with 64 slots comes, by what each part of its way takes.

    Seconds for a picture of 12 megapixels, as it is and shrunk: 0.004 and 0.042 here, in two threads;
    0.305 and 0.065 in each of the server's workers; 2.6 and 0.95 MB on a line of so many bytes a
    second. ``share`` of them goes as it is, or as ``Shrinking`` has it, with the clock of all this.
    From the middle on there are only ``later`` workers.
    """
    clock, times = [0.0], list[float]()
    monkeypatch.setattr("internvl_modal.batch.shrinking.time.monotonic", lambda: clock[0])
    shrinking = Shrinking(DescribeOptions(), 2, same=False)
    if share is not None:
        shrinking._share.share = share  # type: ignore[union-attr]
        monkeypatch.setattr(Share, "round", lambda *_, **__: share)
    begun = waits = under_way = at_server = 0
    free = {"here": [0.0] * 2, "there": [0.0] * workers, "line": [0.0]}
    events: list[tuple[float, int, bool, bool]] = []
    waiting: deque[tuple[int, bool]] = deque()

    def through(place: str, seconds: float, since: float) -> float:
        """When something is through a place that it reaches at ``since``."""
        end = max(since, heapq.heappop(free[place])) + seconds
        heapq.heappush(free[place], end)
        return end

    while len(times) < count:
        if later is not None and len(times) >= count // 2 and len(free["there"]) > later:
            free["there"] = [clock[0]] * later
        while begun < count and under_way < 64 + 2:
            whole = shrinking.options().shrink == "never"
            begun, under_way = begun + 1, under_way + 1
            ready = through("here", 0.004 if whole else 0.042, clock[0])
            heapq.heappush(events, (ready, begun, whole, False))
        clock[0], number, whole, is_answer = heapq.heappop(events)
        if is_answer:
            under_way, at_server = under_way - 1, at_server - 1
            times.append(clock[0])
            shrinking.answered(0.004 if whole else 0.042, waits, under_way)
        else:
            waits += at_server >= 64
            waiting.append((number, whole))
        while waiting and at_server < 64:
            number, whole = waiting.popleft()
            at_server += 1
            sent = through("line", (2.6e6 if whole else 0.95e6) / line, clock[0])
            done = through("there", 0.305 if whole else 0.065, sent) + 0.05
            heapq.heappush(events, (done, number, whole, True))
    return times


@pytest.mark.parametrize(
    ("workers", "line"), [(1, 1e9), (4, 1e9), (8, 1e9), (64, 1e9), (64, 50e6 / 8), (4, 50e6 / 8)]
)
def test_it_comes_near_to_what_is_best(
    monkeypatch: pytest.MonkeyPatch, workers: int, line: float
) -> None:
    """LMDeploy's one thread, several, many, and a line of 50 Mbit/s; some is spent on trying."""
    fixed = []
    for share in (0.0, 0.125, 0.25, 0.5, 1.0):
        with monkeypatch.context() as patch:
            fixed.append(2000 / simulated(patch, workers, share=share, line=line, count=2000)[-1])
    times = simulated(monkeypatch, workers, line=line)
    assert len(times) / times[-1] >= 0.85 * max(fixed), fixed


@pytest.mark.parametrize("later", [1, 4])
def test_a_server_that_loses_workers_gets_shrunk_pictures(
    monkeypatch: pytest.MonkeyPatch, later: int
) -> None:
    """64 workers until the middle: so far the pictures went as they are."""
    with monkeypatch.context() as patch:
        best = simulated(patch, 64, share=0.0, count=6000, later=later)
    times = simulated(monkeypatch, 64, count=6000, later=later)
    assert times[3000] < best[3000] / 2
    assert times[-1] - times[3000] < (best[-1] - best[3000]) / 0.85


def test_a_slow_source_is_no_reason() -> None:
    share = Share()
    assert {share.round(40, idle=True, busy=False) for _ in range(12)} == {0.0}


def test_a_step_that_filled_the_slots_is_not_tried_at_once_again() -> None:
    share = Share()
    share.round(40, idle=True, busy=True)
    assert share.round(40, idle=False, busy=False) == 0.0
    steps = [share.round(40, idle=True, busy=True) for _ in range(8)]
    assert steps == [0.0] * 7 + [0.125]


def test_a_share_of_the_pictures_goes_as_it_is() -> None:
    shrinking = Shrinking(DescribeOptions(), 2, same=False)
    for _ in range(1 + ROUND):
        shrinking.answered(60.0, waits=0, under_way=0)
    kinds = [shrinking.options().shrink for _ in range(16)]
    assert kinds.count("never") == 2
    shrinking.refused()
    assert {shrinking.options().shrink for _ in range(16)} == {"auto"}


@pytest.mark.parametrize("waits", [ROUND, 2 * ROUND])
def test_where_slots_are_full_all_are_shrunk(waits: int) -> None:
    shrinking = Shrinking(DescribeOptions(), 2, same=False)
    for number in range(1 + ROUND):
        shrinking.answered(60.0, number and waits, under_way=0)
    assert {shrinking.options().shrink for _ in range(16)} == {"auto"}


@pytest.mark.parametrize(("shrink", "same"), [("always", False), ("never", False), ("auto", True)])
def test_what_was_asked_for_is_done(shrink: str, same: bool) -> None:
    shrinking = Shrinking(DescribeOptions.parse({"shrink": shrink}), 2, same=same)  # type: ignore[typeddict-item]
    for _ in range(2 * ROUND):
        shrinking.answered(60.0, waits=0, under_way=0)
        assert not shrinking.is_own(shrinking.options())
    assert shrinking.options().shrink == shrink


def test_a_server_that_refuses_a_large_picture_gets_it_shrunk(loopback: Loopback) -> None:
    refused = []

    def answer(heard: Heard) -> Reply:
        found = re.search(rb"base64,([A-Za-z0-9+/=]+)", heard.body)
        assert found
        if Image.open(BytesIO(pybase64.b64decode(found[1]))).width > 448:
            refused.append(heard)
            return Reply(413, {"error": {"message": "too large"}})
        return Reply(body=completion(prompt_tokens=900))

    loopback.will(answer)
    out = BytesIO()
    Image.effect_noise((600, 600), 40).convert("RGB").save(out, "JPEG")
    pictures = ((str(number), out.getvalue()) for number in range(5 * ROUND))
    with ivl.Client(base_url=loopback.url) as client:
        outcomes = list(client.describe_many(pictures, detail=1, concurrency=64))
        assert all(outcome.ok for outcome in outcomes)
        assert len(outcomes) == 5 * ROUND
        assert refused  # slots stood empty, so that some were tried
        with pytest.raises(ivl.RequestRejectedError):  # what the caller wants is not undone
            client.describe(out.getvalue(), detail=1, shrink="never")
