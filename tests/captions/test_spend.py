"""The spend guard: on a simulated clock, and in real batches whose money runs fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import internvl_modal as ivl
from internvl_modal.captions.spend import Bill, SpendMeter
from internvl_modal.protocol.endpoint import Endpoint
from tests.batch.conftest import lines, make_pictures
from tests.captions.conftest import QUICK, Bad
from tests.captions.simulate import run
from tests.loopback import Loopback

RUNS = [run(seed) for seed in range(500)]


def test_the_cap_is_never_exceeded_by_more_than_what_is_in_flight() -> None:
    assert all(each.excess <= each.in_flight + 1e-9 for each in RUNS)
    # The simulation shows both sides: batches that end, that are refused, that are stopped.
    ended = [each for each in RUNS if each.answered == each.pictures]
    stopped = [each for each in RUNS if 0 < each.answered < each.pictures]
    refused = [each for each in RUNS if each.refused]
    assert min(len(ended), len(stopped), len(refused)) > 20
    assert all(each.cost == 0 for each in refused)


def test_the_cap_is_used() -> None:
    # Those that were stopped have spent most of it, but where one request is much of the cap.
    stopped = [each for each in RUNS if 20 < each.answered < each.pictures and each.excess < 0]
    assert sum(each.cost > 0.5 * each.max_usd for each in stopped) > 0.6 * len(stopped)


def test_nothing_is_sent_once_the_idle_window_alone_would_be_too_much() -> None:
    now = [0.0]
    meter = SpendMeter(1.0, Bill(3600.0, idle_usd=0.5), clock=lambda: now[0])
    assert meter.may_send()
    with meter.request():
        now[0] = 0.2
    assert meter.committed == pytest.approx(0.2 + 0.2 + 0.5)
    assert meter.may_send()
    now[0] = 0.31
    assert not meter.may_send()
    error = meter.exhausted()
    assert (error.max_usd, round(error.spent, 2)) == (1.0, 1.01)


class Priced:
    """A plan of a machine that describes a picture for 0.1 to 0.2 USD."""

    def picture_cost(self, tiles: int) -> tuple[float, float]:
        return 0.1, 0.2


class Machine:
    """A server with a known price."""

    name = "machine"

    def __init__(self, url: str, **known: Any) -> None:
        self._endpoint = Endpoint(url, **known)

    def start(self) -> Endpoint:
        return self._endpoint

    def preview(self) -> Endpoint:
        return self._endpoint

    def stop(self) -> None:
        """Nothing was started."""


def test_a_projection_over_the_cap_is_refused_before_the_first_request(
    loopback: Loopback, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "photos", 20)
    backend = Machine(loopback.url, price=Priced(), usd_per_hour=4.0, idle_usd=0.3, start_usd=0.2)
    with ivl.Client(backend, retry=QUICK) as client:
        with pytest.raises(ivl.SpendLimitError, match=r"20 pictures would cost 2\.50") as caught:
            list(client.describe_many(folder, max_usd=2.4, progress=False))
        assert caught.value.spent == 0
        assert not loopback.chats
        # The best case fits: it begins.
        assert len(list(client.describe_many(folder, max_usd=2.6, progress=False))) == 20
        # What an earlier run has settled costs nothing more.
        out = tmp_path / "out.jsonl"
        list(client.describe_many(folder, max_usd=2.6, out=out, progress=False))
        assert list(client.describe_many(folder, max_usd=0.01, out=out, progress=False)) == []


def test_a_plain_url_has_no_price(loopback: Loopback, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "photos", 3)
    with ivl.Client(base_url=loopback.url) as client:
        with pytest.raises(ivl.ConfigError, match="usd_per_hour="):
            list(client.describe_many(folder, max_usd=1.0, progress=False))
        assert not loopback.chats
        with client.describe_many(folder, max_usd=1.0, usd_per_hour=0.5, progress=False) as batch:
            assert len(list(batch)) == 3
        assert batch.summary.usd is not None


@pytest.mark.parametrize("wrong", [0, -1, "much"])
def test_a_cap_of_nothing_is_an_error(loopback: Loopback, tmp_path: Path, wrong: Any) -> None:
    with (
        ivl.Client(base_url=loopback.url) as client,
        pytest.raises(ivl.ConfigError, match="max_usd"),
    ):
        client.describe_many(tmp_path, max_usd=wrong)


def test_it_stops_between_requests_and_goes_on(bad: Callable[..., Bad], tmp_path: Path) -> None:
    # 0.02 s a picture at 36,000 USD an hour: 0.2 USD each, and four at once.
    server, out = bad("--bad", "0", "--slow", "0.02"), tmp_path / "out.jsonl"
    folder = make_pictures(tmp_path / "photos", 400)
    options: Any = {"out": out, "progress": False, "concurrency": 4, "usd_per_hour": 36_000.0}
    seen: list[str] = []
    rounds = 0
    with ivl.Client(base_url=server.url, retry=QUICK) as client:
        while len(seen) < 400:
            rounds += 1
            batch = client.describe_many(folder, max_usd=8.0, **options)
            try:
                seen += [outcome.key for outcome in batch]
            except ivl.SpendLimitError as error:
                assert "same call goes on" in error.hint
                seen += []
                # Each outcome that was asked for was written first, and is not asked for again.
                assert len(lines(out)) <= 400
                keys = [line["key"] for line in lines(out)]
                seen = keys
            assert rounds < 200
    assert rounds > 2
    log = [each["picture"] for each in server.log()]
    assert len(log) == len(set(log)) == 400  # nothing that was paid for is asked for again
    assert len({line["key"] for line in lines(out)}) == len(lines(out)) == 400


def test_the_ladder_is_metered_too(bad: Callable[..., Bad], tmp_path: Path) -> None:
    server, out = bad("--bad", "1", "--slow", "0.05"), tmp_path / "out.jsonl"
    folder = make_pictures(tmp_path / "photos", 60)
    with ivl.Client(base_url=server.url, retry=QUICK) as client:
        batch = client.describe_many(
            folder, out=out, on_flag="retry", max_usd=5.0, usd_per_hour=36_000.0, concurrency=2,
            progress=False,
        )  # fmt: skip
        with pytest.raises(ivl.SpendLimitError):
            list(batch)
    written = lines(out)
    asked = server.log()
    assert 0 < len(written) < 60
    # No text was paid for and lost: what is not written has none.
    texts = {line["text"] for line in written if "error" not in line}
    for digest in {each["picture"] for each in asked}:
        said = {each["text"] for each in asked if each["picture"] == digest} - {""}
        assert not said or said & texts, digest
