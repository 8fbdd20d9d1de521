"""A question is POSTed once; what is lost on the way is asked for again as often as the rule says."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.loopback import Loopback, Reply, completion
from tests.transport.conftest import FAST, KNOWN, Ask
from tests.transport.edge import Edge

LOST = ["close", "reset", "half"]
FAULTS = [*LOST, "503", "429", "408", "500"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_result_is_fetched_again_where_it_was_put(ask: Ask, modal: Edge, fault: str) -> None:
    modal.will("303", fault, "303", fault, "ok")
    answer = ask(modal.url)
    assert answer.text == "What is it?"
    assert modal.posts == 1
    assert (answer.timings.attempts, answer.timings.resent) == (3, 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_303_nothing_is_asked_again(ask: Ask, modal: Edge, fault: str) -> None:
    modal.will("303", *[fault] * 20)
    with pytest.raises(ivl.ServerError):
        ask(modal.url, retry=ivl.Retry(attempts=3, initial=0, resend=9))
    assert [method for method, _ in modal.asked] == ["POST", "GET", "GET", "GET"]


def test_a_result_that_was_given_away(ask: Ask, modal: Edge) -> None:
    modal.will("303", "404")
    with pytest.raises(ivl.ServerError, match="no longer has the answer") as caught:
        ask(modal.url)
    assert not caught.value.retryable
    assert caught.value.status is None  # 404 would end a batch
    assert modal.posts == 1


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_answer_is_asked_for_once_more(
    ask: Ask, modal: Edge, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    modal.will(fault, "ok")
    with caplog.at_level(logging.INFO, "internvl_modal"):
        answer = ask(modal.url, api_key="sk-secret")
    assert modal.posts == 2
    assert (answer.timings.attempts, answer.timings.resent) == (2, 1)
    said = [r.getMessage() for r in caplog.records if r.name == "internvl_modal.retry"]
    assert len(said) == 1
    assert "attempt 1: AnswerLostError, answer lost 1 times" in said[0]
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("resend", "posts"), [(0, 1), (1, 2), (2, 3)])
def test_how_often_is_the_rules(ask: Ask, modal: Edge, resend: int, posts: int) -> None:
    modal.will(*["half"] * 20)
    with pytest.raises(ivl.AnswerLostError, match="the answer of http://127") as caught:
        ask(modal.url, retry=ivl.Retry(attempts=5, initial=0, resend=resend))
    assert "no answer from" not in str(caught.value)
    assert modal.posts == posts


def test_refusals_are_not_counted_as_lost(ask: Ask, modal: Edge) -> None:
    modal.will("503", "close", "429", "ok")
    answer = ask(modal.url)
    assert (answer.timings.attempts, answer.timings.resent) == (4, 1)


def test_nobody_there_is_not_lost(ask: Ask, modal: Edge, caplog: pytest.LogCaptureFixture) -> None:
    url = modal.url
    modal.close()
    with (
        caplog.at_level(logging.INFO, "internvl_modal"),
        pytest.raises(ivl.ServerUnavailableError, match="no answer from") as caught,
    ):
        ask(url)
    assert not isinstance(caught.value, ivl.AnswerLostError)
    assert sum(r.name == "internvl_modal.retry" for r in caplog.records) == FAST.attempts - 1


def test_a_cold_start_is_told_once(ask: Ask, modal: Edge, caplog: pytest.LogCaptureFixture) -> None:
    modal.will("303", "303", "303", "ok")
    with caplog.at_level(logging.INFO, "internvl_modal"):
        ask(modal.url)
    told = [r for r in caplog.records if "waiting for the GPU container" in r.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.INFO


class Cold:
    name = "cold"

    def __init__(self, url: str, startup: tuple[float, float] | None) -> None:
        self._endpoint = ivl.Endpoint(url, "m", capabilities=ivl.Capabilities(), startup=startup)

    def start(self) -> ivl.Endpoint:
        return self._endpoint

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(
    ("startup", "words"),
    [((240.0, 540.0), "(typically 4-9 min for this model)"), ((20.0, 40.0), "(typically 1 min")],
)
def test_how_long_it_takes_is_told_where_it_is_known(
    modal: Edge, caplog: pytest.LogCaptureFixture, startup: tuple[float, float], words: str
) -> None:
    modal.will("303", "ok")
    with caplog.at_level(logging.INFO, "internvl_modal"), ivl.Client(Cold(modal.url, startup)) as c:
        c.chat([{"role": "user", "text": "hi"}])
    assert f"waiting for the GPU container {words}" in caplog.text


def test_a_batch_shows_it_until_something_is_settled(modal: Edge) -> None:
    modal.will("303", "303", "ok")
    shown: list[ivl.BatchProgress] = []
    with ivl.Client(Cold(modal.url, (240.0, 540.0))) as client:
        list(client.describe_many([Image.new("RGB", (9, 9))], progress=shown.append))
    assert shown[0].waiting == "waiting for the GPU container (typically 4-9 min for this model)"
    assert shown[0].waiting in str(shown[0])
    assert shown[0].done == 0
    assert shown[-1].waiting == ""


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize(("script", "posts", "resent"), [("303 {} 503 303 ok", 1, 0), ("{}", 2, 1)])
def test_in_a_batch_too(modal: Edge, fault: str, script: str, posts: int, resent: int) -> None:
    modal.will(*script.format(fault).split())
    with ivl.Client(base_url=modal.url, model="m", **KNOWN) as client:
        (outcome,) = client.describe_many([Image.new("RGB", (9, 9))], progress=False)
    assert outcome.description is not None
    assert outcome.description.timings.resent == resent
    assert modal.posts == posts


class TestEmptyAnswers:
    """They are paid for like one that was lost, and ``resend`` counts them as it counts that."""

    @pytest.mark.parametrize(("resend", "posts"), [(0, 1), (1, 2), (5, 2)])
    def test_asked_again_as_often_as_the_rule_says(
        self, loopback: Loopback, ask: Ask, resend: int, posts: int
    ) -> None:
        loopback.will(Reply(body=completion("")))
        with pytest.raises(ivl.EmptyAnswerError):
            ask(loopback.url, retry=ivl.Retry(attempts=5, initial=0, resend=resend))
        assert len(loopback.chats) == posts

    def test_together_with_one_that_was_lost(self, loopback: Loopback, ask: Ask) -> None:
        loopback.will(Reply(cut=True), Reply(body=completion("")), Reply(body=completion("a")))
        with pytest.raises(ivl.EmptyAnswerError):
            ask(loopback.url)
        assert len(loopback.chats) == 2

    def test_told_in_the_timings(self, loopback: Loopback, ask: Ask) -> None:
        loopback.will(Reply(body=completion("")), Reply(body=completion("a")))
        answer = ask(loopback.url)
        assert (answer.timings.attempts, answer.timings.resent) == (2, 1)

    def test_never_after_a_303(self, loopback: Loopback, ask: Ask) -> None:
        placed = Reply(303, headers={"location": "/v1/result"})
        loopback.will(placed, Reply(body=completion("")), Reply(body=completion("a")))
        with pytest.raises(ivl.EmptyAnswerError):
            ask(loopback.url, retry=ivl.Retry(attempts=5, initial=0, resend=9))
        assert [heard.method for heard in loopback.chats] == ["POST", "GET"]


class TestRule:
    def pause(self, error: BaseException, attempt: int = 1, **given: Any) -> float | None:
        rule = ivl.Retry(attempts=3, initial=1, maximum=4)
        return rule.pause(attempt, error, given.pop("deadline", float("inf")), **given)

    def test_only_what_may_pass(self) -> None:
        assert self.pause(ivl.ServerUnavailableError("x")) is not None
        assert self.pause(ivl.RequestRejectedError("x")) is None
        assert self.pause(ValueError("x")) is None

    def test_as_often_as_it_says(self) -> None:
        error = ivl.EngineError("x")
        assert [self.pause(error, n) is None for n in (1, 2, 3)] == [False, False, True]

    def test_waits_grow_and_are_bounded(self) -> None:
        rule = ivl.Retry(attempts=5000, initial=1, maximum=4)
        error = ivl.EngineError("x")
        waits = [rule.pause(4000, error, float("inf")) for _ in range(200)]
        assert 3 < max(wait or 0 for wait in waits) <= 4
        assert all((rule.pause(1, error, float("inf")) or 0) <= 1 for _ in range(50))

    def test_a_servers_wish_is_obeyed_unless_it_is_too_late(self) -> None:
        import time

        error = ivl.RateLimitedError("x", retry_after=60)
        assert self.pause(error) == 60
        assert self.pause(error, deadline=time.monotonic() + 30) is None

    @pytest.mark.parametrize("resend", [-1])
    def test_impossible(self, resend: int) -> None:
        with pytest.raises(ivl.ConfigError, match="resend >= 0"):
            ivl.Retry(resend=resend)
