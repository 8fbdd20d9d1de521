"""Several servers of one model: who is asked, who is left out, and what is no such server."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.backends.endpoint import EndpointBackend
from internvl_modal.flows import fleet
from internvl_modal.protocol.http import HttpRequest
from internvl_modal.transport import servers as servers_module
from internvl_modal.transport.exchange import Exchange
from internvl_modal.transport.servers import Servers
from tests.loopback import Loopback, Reply, completion, models_list


def listing(*names: str) -> Reply:
    return Reply(body=models_list(*names))


PICTURE = Image.new("RGB", (9, 9))
QUICK = ivl.Retry(attempts=4, initial=0.01)


@pytest.fixture
def three() -> Iterator[list[Loopback]]:
    with ExitStack() as stack:
        found = [stack.enter_context(Loopback()) for _ in range(3)]
        for number, each in enumerate(found):
            each.will(Reply(body=completion(f"server {number}")))
        yield found


def urls(servers: list[Loopback]) -> list[str]:
    return [each.url for each in servers]


def asked(servers: list[Loopback]) -> list[int]:
    return [len(each.chats) for each in servers]


def client(servers: list[Loopback], **more: Any) -> ivl.Client:
    return ivl.Client(base_url=urls(servers), retry=QUICK, **more)


def test_each_is_asked_in_turn(three: list[Loopback]) -> None:
    with client(three) as many:
        texts = {many.describe(PICTURE).text for _ in range(6)}
        assert many.models() == ["internvl"]
    assert texts == {"server 0", "server 1", "server 2"}
    assert asked(three) == [2, 2, 2]


def test_the_least_busy_one_is_asked(three: list[Loopback]) -> None:
    """One that is stuck keeps what it has, and the others get all the rest."""
    gate, stuck = threading.Event(), threading.Event()

    def slow(_: object) -> Reply:
        stuck.set()
        gate.wait(30)
        return Reply(body=completion("slow"))

    three[0].will(slow)
    with client(three) as many:
        many.describe(PICTURE)
        many.describe(PICTURE)
        thread = threading.Thread(target=lambda: many.describe(PICTURE))
        thread.start()
        assert stuck.wait(20)
        for _ in range(8):
            assert many.describe(PICTURE).text != "slow"
        gate.set()
        thread.join(20)
    assert asked(three)[0] <= 2
    assert sum(asked(three)) == 11


def test_one_that_is_gone_is_left_out_and_no_picture_is_lost(
    three: list[Loopback], tmp_path: Path
) -> None:
    with client(three) as many:
        many.describe(PICTURE)
        three[1].__exit__(None, None, None)
        for number in range(40):
            Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"{number}.png")
        batch = many.describe_many(str(tmp_path), detail=1)
        outcomes = list(batch)
    assert all(outcome.ok for outcome in outcomes)
    assert batch.summary.described == 40
    texts = Counter(outcome.text for outcome in outcomes)
    assert texts["server 0"] + texts["server 2"] == 40
    assert min(texts["server 0"], texts["server 2"]) >= 5


@pytest.mark.parametrize("status", [404, 410, 429, 503])
def test_what_nobody_has_worked_for_is_asked_elsewhere(three: list[Loopback], status: int) -> None:
    """At once, and without an attempt of the rule's."""
    three[0].will(Reply(status, {"error": {"message": "no"}}))
    with ivl.Client(base_url=urls(three), retry=ivl.Retry(attempts=1)) as many:
        for _ in range(6):
            assert many.describe(PICTURE).text in ("server 1", "server 2")
    assert asked(three)[0] <= 2


def test_where_all_say_so_it_is_the_answer(three: list[Loopback]) -> None:
    for each in three:
        each.will(Reply(404, {"error": {"message": "no such model"}}))
    with client(three) as many, pytest.raises(ivl.RequestRejectedError, match="no such model"):
        many.describe(PICTURE)
    assert asked(three) == [1, 1, 1]


def test_one_that_comes_back_is_asked_again(
    three: list[Loopback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "FIRST", 0.05)
    three[0].will(*[Reply(503, {"error": {"message": "busy"}})] * 2, Reply(body=completion("back")))
    with client(three[:2]) as many:
        texts = []
        deadline = time.monotonic() + 30
        while "back" not in texts and time.monotonic() < deadline:
            texts.append(many.describe(PICTURE).text)
            time.sleep(0.01)
    assert texts[-1] == "back"
    assert "server 1" in texts


def test_one_that_starts_later_joins(
    three: list[Loopback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "AGAIN", 0.0)
    three[2].models = Reply(503, {"error": {"message": "loading"}})
    with client(three) as many:
        assert {many.describe(PICTURE).text for _ in range(6)} == {"server 0", "server 1"}
        assert asked(three)[2] == 0
        three[2].models = listing()
        assert "server 2" in {many.describe(PICTURE).text for _ in range(6)}


def test_another_model_is_an_error(three: list[Loopback]) -> None:
    three[1].models = listing("lmdeploy", "internvl3-8b")
    words = f"{three[1].url} serves internvl3-8b .*, and {three[0].url} internvl "
    with client(three) as many, pytest.raises(ivl.ConfigError, match=words):
        many.describe(PICTURE)
    with client(three, model="internvl") as many, pytest.raises(ivl.ConfigError, match=words):
        many.describe(PICTURE)
    three[1].models = listing("vllm", "internvl")
    with client(three) as many, pytest.raises(ivl.ConfigError, match=r"\(vllm\)"):
        list(many.describe_many([PICTURE]))
    assert asked(three) == [0, 0, 0]


def test_one_that_comes_later_with_another_model(
    three: list[Loopback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "AGAIN", 0.0)
    three[1].models = Reply(503, {})
    with client(three[:2]) as many:
        many.describe(PICTURE)
        three[1].models = listing("lmdeploy", "other")
        with pytest.raises(ivl.ConfigError, match="serves other"):
            many.describe(PICTURE)
    assert asked(three)[1] == 0


def test_where_none_answers(three: list[Loopback]) -> None:
    dead = "http://127.0.0.1:9/v1"
    both = [dead, dead.replace(":9", ":1")]
    with (
        ivl.Client(base_url=both, timeout=3, retry=QUICK) as many,
        pytest.raises(ivl.ServerError, match="no answer from"),
    ):
        many.describe(PICTURE)
    with ivl.Client(base_url=[dead, three[0].url], timeout=30, retry=QUICK) as many:
        assert many.describe(PICTURE).text == "server 0"


def test_streams_and_async_calls(three: list[Loopback]) -> None:
    async def main() -> set[str]:
        async with ivl.AsyncClient(base_url=urls(three), retry=QUICK) as many:
            found = await asyncio.gather(*(many.describe(PICTURE) for _ in range(9)))
            return {each.text for each in found}

    assert asyncio.run(main()) == {"server 0", "server 1", "server 2"}
    three[0].__exit__(None, None, None)
    with ivl.Client(base_url=urls(three), retry=QUICK) as many:
        assert many.describe(PICTURE).text != "server 0"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "names no server"),
        (["http://a", 3], "base_url"),
        (["http://a:1", "http://a:1/v1"], "a URL twice"),
        (["http://a:1", "http://u:p@b:1"], "holds a user name or a query"),
        (["http://a:1", "http://b:1/?k=secret"], "holds a user name or a query"),
        (["http://a:1", "ftp://b"], "is not an http"),
    ],
)
def test_urls_are_checked(given: Any, message: str) -> None:
    with pytest.raises(ivl.ConfigError, match=message) as caught:
        ivl.Client(base_url=given)
    assert "secret" not in str(caught.value)
    assert "u:p" not in str(caught.value)


def test_a_backend_shows_its_servers() -> None:
    backend = EndpointBackend(["http://a:1", "http://b:2"], api_key="k")
    assert repr(backend) == "EndpointBackend(['http://a:1/v1', 'http://b:2/v1'], model=None)"
    assert backend.start().others == ("http://b:2/v1",)


def run(errors: dict[str, list[Exception | None]], count: int) -> list[str]:
    """Which of some servers were asked, that fail as told."""

    async def main() -> list[str]:
        servers, seen = Servers(), []
        names = tuple(errors)
        step = Exchange(
            names[0], HttpRequest("POST", "x", {}), lambda _: None, 1e12, others=names[1:]
        )

        async def attempt(each: Exchange[Any]) -> None:
            seen.append(each.base_url)
            if (
                error := errors[each.base_url].pop(0) if errors[each.base_url] else None
            ) is not None:
                raise error

        for _ in range(count):
            try:
                await servers.send(step, attempt)
            except ivl.ServerError:
                seen.append("raised")
        return seen

    return asyncio.run(main())


def test_an_engine_that_fails_again_and_again_is_left_out() -> None:
    broken = [ivl.EngineError("no", status=500) for _ in range(5)]
    seen = run({"a": list(broken), "b": []}, 20)
    assert seen.count("a") == 3
    assert seen.count("raised") == 3
    seen = run({"a": [broken[0], None] * 10, "b": []}, 20)
    assert seen.count("a") == 10  # now and then is the pictures' doing


def test_a_refusal_says_that_it_is_there() -> None:
    refused = ivl.RequestRejectedError("no", status=400)
    seen = run({"a": [refused] * 5, "b": []}, 10)
    assert (seen.count("a"), seen.count("raised")) == (5, 5)


def test_retry_after_is_obeyed() -> None:
    busy = ivl.RateLimitedError("later", status=429, retry_after=3600)
    seen = run({"a": [busy], "b": []}, 10)
    assert (seen.count("a"), seen.count("b"), seen.count("raised")) == (1, 10, 0)


def test_on_the_command_line(three: list[Loopback], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / f"{number}.png")
    several = [word for url in urls(three) for word in ("--base-url", url)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "internvl_modal",
            "batch",
            str(folder),
            "--out",
            "o.jsonl",
            *several,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.match("12 described, 0 failed", done.stdout), done.stderr
    assert min(asked(three)) >= 1
    assert sum(asked(three)) == 12


def test_more_may_be_under_way(three: list[Loopback]) -> None:
    """Where nobody says how many, each server counts."""
    told: list[Callable[..., Any] | int] = []
    with client(three) as many:
        batch = many.describe_many([PICTURE], progress=lambda p: told.append(p.concurrency))
        list(batch)
    assert told[-1] == 12
