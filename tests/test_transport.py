"""Every rule of retries, redirects and deadlines, against a real server, for both clients."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

import internvl_modal as ivl
from tests.loopback import Heard, Loopback, Reply, completion, stream_events

PICTURE = Image.new("RGB", (900, 900), "red")
FAST = ivl.Retry(attempts=3, initial=0.01, maximum=0.05)

Call = Callable[..., ivl.Description]


def _sync(loopback: Loopback, **client: Any) -> ivl.Description:
    call = {"timeout": client.pop("call_timeout", None)}
    client = {"backend": loopback.url, "retry": FAST, **client}
    with ivl.Client(**client) as c:
        return c.describe(PICTURE, **call)


def _async(loopback: Loopback, **client: Any) -> ivl.Description:
    call = {"timeout": client.pop("call_timeout", None)}

    async def run() -> ivl.Description:
        async with ivl.AsyncClient(**{"backend": loopback.url, "retry": FAST, **client}) as c:
            return await c.describe(PICTURE, **call)

    return asyncio.run(run())


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param
    return made


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_body_of_several_megabytes(loopback: Loopback, kind: str, redirected: bool) -> None:
    noise = [np.random.default_rng(seed).bytes(896 * 896 * 3) for seed in range(4)]
    pictures = [Image.frombytes("RGB", (896, 896), pixels) for pixels in noise]
    answer = Reply(body=completion(prompt_tokens=20_000))
    elsewhere = Reply(307, headers={"location": f"{loopback.url}/v1/chat/completions"})
    loopback.will(*([elsewhere] if redirected else []), answer)

    async def run() -> None:
        async with ivl.AsyncClient(loopback.url) as c:
            await c.describe(pictures)

    if kind == "async":
        asyncio.run(run())
    else:
        with ivl.Client(loopback.url) as c:
            c.describe(pictures)
    sent = loopback.chats[-1]
    assert len(sent.body) == int(sent.headers["content-length"]) > 2_000_000
    assert "transfer-encoding" not in sent.headers
    assert str(sent.json).count("data:image") == 4


@pytest.mark.parametrize("key", ["Bearer SECRET\n", "Bearer SECR\u00cbT", "Bearer SECRET\0"])
def test_a_header_that_cannot_be_sent_is_not_shown(
    call: Call, loopback: Loopback, key: str
) -> None:
    class Careless:
        name = "careless"

        def start(self) -> ivl.Endpoint:
            return ivl.Endpoint(loopback.url, headers={"authorization": key})

        def stop(self) -> None:
            pass

    with pytest.raises(ivl.ConfigError, match="header 'authorization'") as caught:
        call(loopback, backend=Careless())
    report = "".join(traceback.format_exception(caught.value))
    assert "SECR" not in report
    assert not loopback.heard


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(call: Call, loopback: Loopback, status: int) -> None:
    loopback.will(Reply(status, "later"), Reply(status, "later"), Reply(body=completion("ok")))
    description = call(loopback)
    assert description.text == "ok"
    assert description.timings.attempts == 3
    assert len(loopback.chats) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_refusal_is_final(call: Call, loopback: Loopback, status: int) -> None:
    loopback.will(Reply(status, {"message": "no"}))
    with pytest.raises(ivl.ServerError, match="no") as caught:
        call(loopback)
    assert caught.value.status == status
    assert not caught.value.retryable
    assert len(loopback.chats) == 1


def test_a_lost_connection_is_tried_again(call: Call, loopback: Loopback) -> None:
    loopback.will(Reply(cut=True), Reply(body=completion("ok")))
    assert call(loopback).timings.attempts == 2


def test_a_cut_body_is_tried_again(call: Call, loopback: Loopback) -> None:
    loopback.will(Reply(chunks=[b'{"choices"'], cut=True), Reply(body=completion("ok")))
    assert call(loopback).timings.attempts == 2


def test_the_last_failure_is_raised(call: Call, loopback: Loopback) -> None:
    loopback.will(Reply(503, "<html><body><h1>Bad</h1> gateway</body></html>"))
    with pytest.raises(ivl.ServerUnavailableError, match="503: Bad gateway"):
        call(loopback)
    assert len(loopback.chats) == FAST.attempts


def test_nobody_listening(call: Call, loopback: Loopback) -> None:
    with socket.socket() as bound:  # so that nobody else comes to listen there
        bound.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{bound.getsockname()[1]}/v1/models"
        loopback.models = Reply(302, headers={"location": gone})
        with pytest.raises(ivl.ServerUnavailableError, match=r"no answer from http://127\.0\.0\.1"):
            call(loopback)


@pytest.mark.parametrize("header", ["1", "date"])
def test_retry_after_is_obeyed(call: Call, loopback: Loopback, header: str) -> None:
    begun = time.monotonic()
    value = header if header == "1" else formatdate(time.time() + 2, usegmt=True)
    loopback.will(Reply(429, "slow", headers={"Retry-After": value}), Reply(body=completion()))
    call(loopback)
    assert time.monotonic() - begun >= 0.9


def test_a_wait_past_the_deadline_is_not_begun(call: Call, loopback: Loopback) -> None:
    loopback.will(Reply(429, "slow", headers={"Retry-After": "3600"}))
    begun = time.monotonic()
    with pytest.raises(ivl.RateLimitedError) as caught:
        call(loopback, timeout=100)
    assert caught.value.retry_after == 3600
    assert time.monotonic() - begun < 50


def test_the_deadline_is_for_the_whole_call(call: Call, loopback: Loopback) -> None:
    loopback.will(Reply(chunks=[b" "] * 1000, pause=0.1))
    begun = time.monotonic()
    with pytest.raises(ivl.DeadlineExceededError, match="timeout"):
        call(loopback, call_timeout=1)
    assert time.monotonic() - begun < 50


def test_a_silent_server_meets_the_deadline(call: Call, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion(), pause=100))
    begun = time.monotonic()
    with pytest.raises(ivl.DeadlineExceededError):
        call(loopback, timeout=0.5)
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_deadline_may_be_far_away(call: Call, loopback: Loopback, timeout: float) -> None:
    assert call(loopback, call_timeout=timeout).text == "A cat."


def test_repairs_share_one_deadline(loopback: Loopback) -> None:
    class Answer(BaseModel):
        word: str

    loopback.will(Reply(body=completion("no"), pause=0.4))
    with ivl.Client(base_url=loopback.url) as c, pytest.raises(ivl.DeadlineExceededError):
        c.extract(PICTURE, Answer, repairs=1000, timeout=1)
    assert len(loopback.chats) <= 3


def test_a_picture_is_not_awaited_past_the_deadline(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picture(_: Heard) -> Reply:
        pass_time(monkeypatch, 25)  # more than the call has, and less than any picture has
        return Reply(chunks=[b"x"] * 5, pause=0.1)

    loopback.will(picture)
    url = f"{loopback.origin}/a.jpg"
    with ivl.Client(base_url=loopback.url) as c, pytest.raises(ivl.ImageError, match="not there"):
        c.describe(url, timeout=20, allow_private_urls=True)
    assert len(loopback.chats) == 1


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put the clock of deadlines forward."""
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)


def test_starting_a_backend_is_not_on_the_clock(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        name = "slow"

        def start(self) -> ivl.Endpoint:
            pass_time(monkeypatch, 3600)
            return ivl.Endpoint(loopback.url, model="m", capabilities=ivl.Capabilities())

        def stop(self) -> None:
            pass

    with ivl.Client(Slow()) as client:
        assert client.describe(PICTURE, timeout=60).text == "A cat."


def test_modals_redirect_is_followed_with_get(call: Call, loopback: Loopback) -> None:
    def begin(heard: Heard) -> Reply:
        assert heard.method == "POST"
        return Reply(303, headers={"location": "/v1/result?__modal_function_call_id=fc-1"})

    again = Reply(303, headers={"location": "/v1/result?__modal_function_call_id=fc-1"})
    loopback.will(begin, again, Reply(body=completion("at last")))
    assert call(loopback, api_key="secret").text == "at last"
    assert [heard.method for heard in loopback.chats] == ["POST", "GET", "GET"]
    assert loopback.chats[-1].headers["authorization"] == "Bearer secret"


def test_keys_stay_with_their_origin(call: Call, loopback: Loopback) -> None:
    with Loopback() as other:
        target = f"{other.url}/chat/completions"
        loopback.will(Reply(307, headers={"location": target}))
        assert call(loopback, api_key="secret").text == "A cat."
        assert "authorization" not in other.chats[0].headers
        assert "authorization" in loopback.chats[0].headers


def test_a_circle_of_redirects_ends(call: Call, loopback: Loopback) -> None:
    loopback.will(Reply(303, headers={"location": "/v1/round"}))
    with pytest.raises(ivl.ServerUnavailableError, match="redirected"):
        call(loopback, retry=ivl.Retry(attempts=1))


def test_an_own_http_client_is_used_and_left_open(loopback: Loopback) -> None:
    with httpx.Client(headers={"x-own": "1"}) as own:
        _sync(loopback, http_client=own)
        assert not own.is_closed
    assert loopback.chats[0].headers["x-own"] == "1"


def test_an_own_async_client_is_used_and_left_open(loopback: Loopback) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(headers={"x-own": "1"}) as own:
            async with ivl.AsyncClient(base_url=loopback.url, http_client=own) as client:
                await client.describe(PICTURE)
            assert not own.is_closed

    asyncio.run(run())
    assert loopback.chats[0].headers["x-own"] == "1"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_reached_without_the_proxy(
    call: Call, loopback: Loopback, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with Loopback() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        call(loopback, backend=loopback.url.replace("127.0.0.1", host), api_key="sk-1")
        assert not proxy.heard
        assert loopback.chats
        call(loopback, backend="http://elsewhere.test/v1")
        assert proxy.chats[0].path == "http://elsewhere.test/v1/chat/completions"


def test_the_wrong_kind_of_http_client(loopback: Loopback) -> None:
    with pytest.raises(ivl.ConfigError, match=r"httpx\.Client"):
        ivl.Client(base_url=loopback.url, http_client=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ivl.Client, ivl.AsyncClient])
def test_a_retry_rule_that_is_none(loopback: Loopback, kind: Any) -> None:
    with pytest.raises(ivl.ConfigError, match=r"retry is of type int \(pass an internvl_modal\.R"):
        kind(base_url=loopback.url, retry=3)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"initial": -1}, {"factor": 0.5}])
def test_impossible_retry_rules(wrong: dict[str, Any]) -> None:
    with pytest.raises(ivl.ConfigError, match="impossible"):
        ivl.Retry(**wrong)


def test_a_second_event_loop_is_refused(loopback: Loopback) -> None:
    client = ivl.AsyncClient(base_url=loopback.url)
    first = asyncio.new_event_loop()
    first.run_until_complete(client.describe(PICTURE))
    with pytest.raises(ivl.ConfigError, match="another event loop"):
        asyncio.run(client.describe(PICTURE))
    first.run_until_complete(client.aclose())
    first.run_until_complete(first.shutdown_default_executor())
    first.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")
def test_a_forked_process_gets_connections_of_its_own(loopback: Loopback) -> None:
    def echo(heard: Heard) -> Reply:
        return Reply(body=completion(heard.json["messages"][0]["content"][0]["text"]), pause=0.05)

    script = f"""
import os, internvl_modal as ivl
from PIL import Image
picture = Image.new("RGB", (9, 9))
client = ivl.Client({loopback.url!r})
client.describe(picture, "parent")
children = []
for name in "abcd":
    children.append(os.fork())
    if not children[-1]:
        texts = {{client.describe(picture, name).text[-1] for _ in range(5)}}
        os._exit(texts != {{name}})
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
"""
    loopback.will(echo)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_closed_client_says_so(loopback: Loopback) -> None:
    client = ivl.Client(base_url=loopback.url)
    client.close()
    with pytest.raises(ivl.ConfigError, match="closed"):
        client.describe(PICTURE)


@pytest.mark.parametrize("own", [False, True])
def test_a_closed_client_starts_nothing(loopback: Loopback, own: bool) -> None:
    class Counted:
        name = "counted"
        started = 0

        def start(self) -> ivl.Endpoint:
            self.started += 1
            return ivl.Endpoint(loopback.url)

        def stop(self) -> None:
            pass

    async def other() -> None:
        async with httpx.AsyncClient() as http:
            client = ivl.AsyncClient(backend, http_client=http if own else None)
            await client.aclose()
            with pytest.raises(ivl.ConfigError, match="closed"):
                await client.describe(PICTURE)

    backend = Counted()
    with httpx.Client() as http:
        client = ivl.Client(backend, http_client=http if own else None)
        client.close()
        calls: list[Callable[[], object]] = [
            lambda: client.describe(PICTURE),
            lambda: list(client.stream(PICTURE)),
            lambda: list(client.describe_many([PICTURE])),
            client.models,
            client.wait_until_ready,
        ]
        for attempt in calls:
            with pytest.raises(ivl.ConfigError, match="closed"):
                attempt()
    asyncio.run(other())
    assert backend.started == 0


def test_a_stream_is_tried_again_until_it_begins(loopback: Loopback) -> None:
    good = Reply(chunks=stream_events("A ", "cat."))
    loopback.will(Reply(503, "cold"), good, Reply(503, "cold"), good)
    with ivl.Client(base_url=loopback.url, retry=FAST) as client:
        stream = client.stream(PICTURE)
        assert list(stream) == ["A ", "cat."]
    assert stream.description.text == "A cat."
    assert stream.description.timings.attempts == 2

    async def run() -> ivl.Description:
        async with ivl.AsyncClient(base_url=loopback.url, retry=FAST) as client:
            stream = client.stream(PICTURE)
            assert [piece async for piece in stream] == ["A ", "cat."]
            return stream.description

    assert asyncio.run(run()).timings.attempts == 2


def test_a_stream_cut_in_the_middle(loopback: Loopback) -> None:
    pieces: list[str] = []

    def first_alone(before: int) -> Iterator[bytes]:
        yield stream_events("A ", "cat.")[0]
        while len(pieces) == before:  # a reset takes away what has not been read
            time.sleep(0.01)

    loopback.will(lambda _: Reply(chunks=first_alone(len(pieces)), cut=True))
    with (
        ivl.Client(base_url=loopback.url, retry=FAST) as client,
        pytest.raises(ivl.EngineError, match="ended early"),
    ):
        for piece in client.stream(PICTURE):
            pieces.append(piece)

    async def run() -> None:
        async with ivl.AsyncClient(base_url=loopback.url, retry=FAST) as client:
            async for piece in client.stream(PICTURE):
                pieces.append(piece)

    with pytest.raises(ivl.EngineError, match="ended early"):
        asyncio.run(run())
    assert pieces == ["A ", "A "]
    assert len(loopback.chats) == 2


def test_a_refused_stream(loopback: Loopback) -> None:
    loopback.will(Reply(401, {"detail": {"error": {"message": "Incorrect API key"}}}))
    with (
        ivl.Client(base_url=loopback.url) as client,
        pytest.raises(ivl.AuthenticationError, match="Incorrect API key"),
    ):
        list(client.stream(PICTURE))


def test_a_stream_meets_its_deadline(loopback: Loopback) -> None:
    loopback.will(Reply(chunks=stream_events(*"abcdefghijklmnopqrst"), pause=0.1))
    with (
        ivl.Client(base_url=loopback.url) as client,
        pytest.raises(ivl.DeadlineExceededError),
    ):
        list(client.stream(PICTURE, timeout=0.5))


def test_many_calls_at_once_share_the_pool(loopback: Loopback) -> None:
    async def run() -> list[ivl.Description]:
        async with ivl.AsyncClient(base_url=loopback.url) as client:
            return await asyncio.gather(*(client.describe(PICTURE) for _ in range(40)))

    assert len(asyncio.run(run())) == 40
    assert sum(heard.path.endswith("/models") for heard in loopback.heard) <= 40
