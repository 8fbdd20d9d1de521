"""Nothing grows without bound, and nothing leads astray."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc
import zlib
from urllib.parse import urlsplit

import pytest

import internvl_modal as ivl
from internvl_modal.transport import over_aiohttp
from tests.loopback import completion
from tests.transport.conftest import KNOWN, QUESTION, Ask, Raw

OK = json.dumps(completion("fine")).encode()
ASTRAY = (
    b"http://user:hidden@127.0.0.1:1/v1",
    b"//user@127.0.0.1:1/v1",
    b"ftp://127.0.0.1/v1",
    b"file:///etc/passwd",
    b"javascript:alert(1)",
    b"http://[::1/v1",
    b"http://127.0.0.1:99999/v1",
    b"http://a..b/v1",
    b"http://" + b"a" * 64 + b"/v1",
    b"http://" + b"a" * 60_000,
    b"/v1/\x01",
    b"/v1/\x7f?a=b",
    b"data:application/json,{}",
)
"""Addresses that no redirect is followed to, whatever the connections are made with."""


def answer(body: bytes = OK, *headers: bytes, status: int = 200) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n%s" % (status, lines, len(body), body)


def says(raw: Raw, *data: bytes) -> None:
    def talk(connection: socket.socket, _: bytes) -> str:
        for each in data:
            connection.sendall(each)
        return "end"

    raw.talk = talk


@pytest.mark.parametrize("status", [b"200 OK", b"500 X", b"303 X\r\nlocation: /v1/r"])
def test_an_endless_answer(ask: Ask, raw: Raw, status: bytes) -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\n\r\n")
        while True:
            connection.sendall(b" " * 2**20)

    raw.talk = talk
    tracemalloc.start()
    with pytest.raises(ivl.ServerError):
        ask(raw.url, retry=ivl.Retry(attempts=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_an_endless_stream(raw: Raw) -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            connection.sendall(b": comment\n" * 10_000)

    raw.talk = talk
    with (
        ivl.Client(base_url=raw.url, model="m", **KNOWN) as client,
        pytest.raises(ivl.ServerError, match="larger than 32 MiB"),
    ):
        list(client.stream_chat(QUESTION, max_tokens=None))


def test_headers_up_to_their_limit(ask: Ask, raw: Raw) -> None:
    says(raw, answer(OK, b"X-Long: " + b"a" * 90_000))
    assert ask(raw.url).text == "fine"
    says(raw, answer(OK, *[b"X-%d: 1" % n for n in range(900)]))
    assert ask(raw.url).text == "fine"


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"


@pytest.mark.parametrize(
    "said",
    [
        answer(OK, b"X: " + b"a" * 200_000),
        answer(OK, *[b"X: " + b"a" * 900] * 900),
        answer(OK, *[b"X: 1"] * 1100),
        b"HTTP/1.1 200 " + b"a" * 200_000,
        CHUNKED + b"X: 1\r\n" * 1100 + b"\r\n",
    ],
    ids=["one", "all", "their number", "a status line", "trailers"],
)
def test_headers_over_their_limit(ask: Ask, raw: Raw, said: bytes) -> None:
    says(raw, said)
    with pytest.raises(ivl.ServerError, match="more than 1,000 headers, or 100 KiB") as caught:
        ask(raw.url)
    assert not caught.value.retryable
    assert len(raw.requests) == 1


def test_identity_is_asked_for(ask: Ask, raw: Raw) -> None:
    says(raw, answer())
    ask(raw.url)
    assert b"accept-encoding: identity" in raw.requests[0].lower()


@pytest.mark.parametrize(
    ("coding", "body"), [(b"gzip", gzip.compress(OK)), (b"deflate", zlib.compress(OK))]
)
def test_a_coding_that_was_not_asked_for(ask: Ask, raw: Raw, coding: bytes, body: bytes) -> None:
    says(raw, answer(body, b"content-encoding: " + coding))
    assert ask(raw.url).text == "fine"


def test_a_bomb_is_met_by_the_limit(ask: Ask, raw: Raw) -> None:
    says(raw, answer(gzip.compress(bytes(200 * 2**20)), b"content-encoding: gzip"))
    tracemalloc.start()
    with pytest.raises(ivl.ServerError, match="larger than 192 KiB"):
        ask(raw.url)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize(
    "coding", [b"gzip, gzip", b"br", b"zstd", b"gzip\r\ncontent-encoding: gzip"]
)
def test_other_codings_are_refused(ask: Ask, raw: Raw, coding: bytes) -> None:
    says(raw, answer(gzip.compress(gzip.compress(OK)), b"content-encoding: " + coding))
    with pytest.raises(ivl.ServerError, match="not asked for"):
        ask(raw.url)


@pytest.mark.parametrize("location", [*ASTRAY, b"http://2130706433:9/v1"])
@pytest.mark.parametrize("status", [303, 307])
def test_an_address_that_is_not_followed(ask: Ask, raw: Raw, location: bytes, status: int) -> None:
    says(raw, answer(b"", b"location: " + location, status=status))
    with pytest.raises(ivl.RequestRejectedError, match="not followed") as caught:
        ask(raw.url, api_key="sk-1")
    assert caught.value.status == status
    assert "hidden" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert len(raw.requests) == 1


@pytest.mark.parametrize(
    ("location", "target", "hint"),
    [
        (
            b"https://new.example/api/v1/chat/completions?key=hidden#a",
            "https://new.example/api/v1/chat/completions",
            "pass base_url='https://new.example/api/v1'",
        ),
        (b"/v2/chat/completions", "/v2/chat/completions' (", "/v2' if that is your server"),
        (b"https://sso.example/login?next=hidden", "https://sso.example/login'", "logging in"),
        (b"/" + b"a" * 50_000, "/aaa", "logging in"),
    ],
    ids=["another server", "another path", "a page", "a long one"],
)
@pytest.mark.parametrize("status", [301, 302])
def test_a_question_that_is_sent_elsewhere(
    ask: Ask, raw: Raw, location: bytes, target: str, hint: str, status: int
) -> None:
    """Browsers follow it with a GET, which has no question in it."""
    says(raw, answer(b"", b"location: " + location, status=status))
    with pytest.raises(ivl.RequestRejectedError, match="redirects to") as caught:
        ask(raw.url, api_key="sk-1")
    assert target in caught.value.message
    assert f"({status})" in caught.value.message
    assert hint in caught.value.hint
    assert "hidden" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert len(raw.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_list_of_models_that_has_moved(raw: Raw, status: int) -> None:
    def talk(connection: socket.socket, request: bytes) -> None:
        here = request.startswith(b"GET /new/models ")
        there = answer(b"", b"location: /new/models", status=status)
        connection.sendall(answer(b'{"data": [{"id": "m"}]}') if here else there)

    raw.talk = talk
    with ivl.Client(base_url=raw.url) as client:
        assert client.models() == ["m"]


@pytest.mark.parametrize("status", [303, 307, 308])
def test_a_loop_ends(ask: Ask, raw: Raw, status: int) -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer(b"", b"location: /v1/round", status=status))

    raw.talk = talk
    with pytest.raises(ivl.ServerUnavailableError, match="redirected"):
        ask(raw.url)
    assert len(raw.requests) <= 55


@pytest.mark.parametrize(
    "url", ["http://a..b/v1", f"http://{'a' * 64}/v1", "http://2130706433:9/v1"]
)
def test_a_base_url_that_names_no_host(ask: Ask, url: str) -> None:
    with pytest.raises(ivl.ConfigError, match="not a usable URL"):
        ask(url)


def test_quoting_in_a_location_is_left_alone(ask: Ask, raw: Raw) -> None:
    def talk(connection: socket.socket, request: bytes) -> None:
        here = request.startswith(b"GET /v1/r?sig=a%2Fb%2B&x=1 ")
        place = b"location: /v1/r?sig=a%2Fb%2B&x=1#there"
        connection.sendall(answer() if here else answer(b"", place, status=303))

    raw.talk = talk
    assert ask(raw.url).text == "fine"


class At:
    name = "at"

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def start(self) -> ivl.Endpoint:
        return ivl.Endpoint(self._base_url)

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h/a%2fb?sig=%2B", "http://h/a%2fb?sig=%2B"),
        ("http://h/a b", "http://h/a%20b"),
        ("http://h/a ", "http://h/a%20"),
        ("http://h/\u00e4", "http://h/%C3%A4"),
    ],
)
def test_a_url_is_quoted_only_where_it_must_be(url: str, sent: str) -> None:
    """A server's own quoting may be signed; a blank would end the first line of the request."""
    assert str(over_aiohttp._url(url)) == sent


def test_user_and_query_of_the_base_url(ask: Ask, raw: Raw) -> None:
    says(raw, answer())
    base = raw.url.replace("http://", "http://me:p%40ss@") + "/?api-version=1"
    ask(None, backend=At(base))
    head = raw.requests[0].split(b"\r\n\r\n")[0]
    assert head.startswith(b"POST /v1/chat/completions?api-version=1 ")
    assert b"authorization: basic bwu6cebzcw==" in head.lower()


def test_a_base_urls_secrets_are_not_told(ask: Ask) -> None:
    with pytest.raises(ivl.ServerUnavailableError) as caught:
        ask(None, backend=At("http://me:hidden@127.0.0.1:9/v1?key=hidden"))
    assert "hidden" not in str(caught.value)
    assert urlsplit("http://127.0.0.1:9/v1").netloc in str(caught.value)
