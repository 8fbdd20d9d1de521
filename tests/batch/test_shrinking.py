"""Who shrinks the pictures of a batch, by what was measured; and a server that takes no large ones."""

from __future__ import annotations

import re
from io import BytesIO

import pybase64
import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.batch.shrinking import ROUND, Share, Shrinking
from internvl_modal.schema.options import DescribeOptions
from tests.loopback import Heard, Loopback, Reply, completion


def served(workers: float, *, cores: float = 2.0, line: float = 1e9) -> float:
    """The mean share of 40 rounds against a server whose rates follow from what each of them does.

    Seconds for a picture of 12 megapixels, as it is and shrunk: 0.004 and 0.06 here, 0.3 and 0.045
    at the server; 2.6 and 0.7 MB on the line.
    """
    share, shares = Share(), []
    for _ in range(60):
        whole = share.share
        here = cores / (0.004 * whole + 0.06 * (1 - whole))
        there = workers / (0.3 * whole + 0.045 * (1 - whole))
        way = line / (2.6e6 * whole + 0.7e6 * (1 - whole))
        short = here < min(there, way)
        share.round(idle=short, busy=short)
        shares.append(share.share)
    return sum(shares[-40:]) / 40


@pytest.mark.parametrize(
    ("workers", "line", "least", "most"),
    [
        (1, 1e9, 0.0, 0.0),  # LMDeploy's one thread
        (4, 1e9, 0.125, 0.25),  # balanced at a sixth
        (64, 1e9, 0.875, 1.0),
        (64, 50e6 / 8, 0.0, 0.0),  # 50 Mbit/s
    ],
)
def test_the_share_finds_what_is_best(
    workers: float, line: float, least: float, most: float
) -> None:
    assert least <= served(workers, line=line) <= most


def test_a_slow_source_is_no_reason() -> None:
    share = Share()
    assert {share.round(idle=True, busy=False) for _ in range(12)} == {0.0}


def test_a_step_that_filled_the_slots_is_not_tried_at_once_again() -> None:
    share = Share()
    share.round(idle=True, busy=True)
    assert share.round(idle=False, busy=False) == 0.0
    steps = [share.round(idle=True, busy=True) for _ in range(8)]
    assert steps == [0.0] * 7 + [0.125]


def test_a_share_of_the_pictures_goes_as_it_is() -> None:
    shrinking = Shrinking(DescribeOptions(), 2, same=False)
    for _ in range(ROUND):
        shrinking.answered(60.0, waits=0)
    kinds = [shrinking.options().shrink for _ in range(16)]
    assert kinds.count("never") == 2
    shrinking.refused()
    assert {shrinking.options().shrink for _ in range(16)} == {"auto"}


@pytest.mark.parametrize("waits", [ROUND, 2 * ROUND])
def test_where_slots_are_full_all_are_shrunk(waits: int) -> None:
    shrinking = Shrinking(DescribeOptions(), 2, same=False)
    for _ in range(ROUND):
        shrinking.answered(60.0, waits)
    assert {shrinking.options().shrink for _ in range(16)} == {"auto"}


@pytest.mark.parametrize(("shrink", "same"), [("always", False), ("never", False), ("auto", True)])
def test_what_was_asked_for_is_done(shrink: str, same: bool) -> None:
    shrinking = Shrinking(DescribeOptions.parse({"shrink": shrink}), 2, same=same)  # type: ignore[typeddict-item]
    for _ in range(2 * ROUND):
        shrinking.answered(60.0, waits=0)
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
