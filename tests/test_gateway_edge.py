"""Whom the gateway lets in, for how long, and what it never tells: over sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import httpx
import pytest
import uvicorn

from internvl_modal.client.aio import AsyncClient
from internvl_modal.deployment.served_app import FixedBackend
from internvl_modal.gateway import create_app
from internvl_modal.gateway.listening import GuardedConnection
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.transport.retry import Retry
from tests.asgi import serving
from tests.loopback import Heard, Loopback, Reply, completion, stream_events
from tests.test_gateway import BEARER, KEY, PICTURE

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello."}]}


def app(loopback: Loopback, **settings: Any) -> Any:
    backend = FixedBackend(loopback.url, "upstream-key", "internvl2_5-78b", "lmdeploy-0.7.3")
    return create_app(AsyncClient(backend, retry=Retry(attempts=1)), api_key=KEY, **settings)


def connect(url: str) -> socket.socket:
    port = httpx.URL(url).port
    assert port
    return socket.create_connection(("127.0.0.1", port), 30)


def head(path: str, length: int, key: str = KEY) -> bytes:
    lines = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    return f"{lines}Content-Length: {length}\r\n\r\n".encode()


def rest(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"image_data": PICTURE}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "n": 2}),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
    ],
)
def test_a_caller_who_leaves_stops_the_models_server(
    loopback: Loopback, path: str, body: dict[str, Any]
) -> None:
    began, left = threading.Event(), threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b": waiting\n\n" if body.get("stream") else b" "
                began.set()
                time.sleep(0.01)
        finally:
            left.set()

    def answer(_: Heard) -> Reply:
        return Reply(chunks=endless())

    loopback.will(answer, answer)
    content = json.dumps(body).encode()
    with serving(app(loopback)) as url:
        with connect(url) as caller:
            caller.sendall(head(path, len(content)) + content)
            assert began.wait(60)
        assert left.wait(60)
        counted = ""
        while "requests_total{" not in counted:
            counted = httpx.get(f"{url}/metrics", headers=BEARER, timeout=60).text
    assert 'requests_total{status="499"} 1.0' in counted


def test_no_more_requests_than_there_is_room_for(loopback: Loopback) -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def slow(_: Heard) -> Reply:
        begun.release()
        go.wait(60)
        return Reply(body=completion())

    loopback.will(slow, slow)
    with serving(app(loopback, max_requests=2)) as url, ExitStack() as callers:
        content = json.dumps(CHAT).encode()
        waiting = [callers.enter_context(connect(url)) for _ in range(2)]
        for caller in waiting:
            caller.sendall(head("/v1/chat/completions", len(content)) + content)
            assert begun.acquire(timeout=60)
        refused = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=BEARER, timeout=60)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert httpx.get(f"{url}/health", timeout=60).status_code == 200
        assert httpx.get(f"{url}/metrics", headers=BEARER, timeout=60).status_code == 200
        go.set()
        assert all(caller.recv(12) == b"HTTP/1.1 200" for caller in waiting)
        after = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=BEARER, timeout=60)
        assert after.status_code == 200


class Planned:
    """A backend that knows how many requests it answers at once."""

    name = "planned"

    def start(self) -> Endpoint:
        return Endpoint("http://127.0.0.1:9/v1", "m")

    def stop(self) -> None:
        pass

    def preview(self) -> Endpoint:
        return Endpoint("", sessions=1)


def test_room_for_twice_as_many_as_the_server_answers() -> None:
    with serving(create_app(AsyncClient(Planned()), api_key=KEY)) as url, ExitStack() as callers:
        for _ in range(2):
            callers.enter_context(connect(url)).sendall(head("/", 10))
        statuses = []
        while 503 not in statuses:
            answer = httpx.post(url, json={}, headers=BEARER, timeout=60)
            statuses.append(answer.status_code)
        assert set(statuses) <= {422, 503}


def test_bodies_fill_no_more_memory_than_all_may(loopback: Loopback) -> None:
    with serving(app(loopback, max_body=1000)) as url, ExitStack() as callers:
        for _ in range(8):
            callers.enter_context(connect(url)).sendall(head("/", 1000) + b"x" * 999)
        with connect(url) as last:
            last.sendall(head("/", 1000) + b"x" * 999)
            assert last.recv(12) == b"HTTP/1.1 503"


def test_a_body_that_takes_too_long(loopback: Loopback) -> None:
    with serving(app(loopback, body_timeout=0.2)) as url, connect(url) as caller:
        caller.sendall(head("/", 1000) + b"the beginning")
        assert caller.recv(12) == b"HTTP/1.1 408"


@pytest.mark.parametrize("length", ["9" * 5000, "99999999"])
def test_a_body_that_says_it_is_too_large_is_not_waited_for(
    loopback: Loopback, length: str
) -> None:
    with serving(app(loopback)) as url, connect(url) as caller:
        caller.sendall(head("/", 0).replace(b"Length: 0", b"Length: " + length.encode()))
        assert caller.recv(12) in (b"HTTP/1.1 413", b"HTTP/1.1 400")


class Hasty(GuardedConnection):
    """The guard of ``serve`` with less patience."""

    patience = 0.3


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HTTP/1.1\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        head("/", 9, "no"),
    ],
)
def test_a_connection_without_a_request_ends(loopback: Loopback, sent: bytes) -> None:
    with serving(app(loopback), http=Hasty) as url, connect(url) as caller:
        caller.sendall(sent)
        answer = rest(caller)
    assert answer.startswith(b"HTTP/1.1 " if sent.endswith(b"\r\n\r\n") else b"")


def test_a_head_that_trickles_in_ends(loopback: Loopback) -> None:
    with (
        serving(app(loopback), http=Hasty) as url,
        connect(url) as caller,
        pytest.raises(OSError, match=r"reset|[Bb]roken"),
    ):
        for _ in range(600):
            caller.sendall(b"G")
            time.sleep(0.05)


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions", "/health"])
def test_a_request_of_two_lengths(loopback: Loopback, path: str) -> None:
    """A proxy that goes by the other one would take what follows for another caller's request."""
    hidden = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    two = head(path, 4).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    with serving(app(loopback), http=GuardedConnection) as url, connect(url) as caller:
        caller.sendall(two + b"0\r\n\r\n" + hidden.encode())
        answer = rest(caller)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


class Noted(GuardedConnection):
    delays: ClassVar[list[bool]] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        option = transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY
        )
        self.delays.append(not option)


def test_a_body_does_not_wait_for_its_heads_acknowledgement(loopback: Loopback) -> None:
    """Over a socket that was bound beforehand, as ``serve`` has it: asyncio would let it wait."""
    config = uvicorn.Config(app(loopback), http=Noted, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving_it = threading.Thread(target=server.run, args=([listening],))
        serving_it.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/health"
            assert httpx.get(url, timeout=60).is_success
        finally:
            server.should_exit = True
            serving_it.join(60)
    assert Noted.delays == [False]


def test_a_request_under_way_is_not_ended(loopback: Loopback) -> None:
    def slow(_: Heard) -> Reply:
        time.sleep(1)
        return Reply(body=completion())

    loopback.will(slow)
    with serving(app(loopback), http=Hasty) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=BEARER, timeout=60)
    assert answer.status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ulimit")
def test_idle_connections_without_a_key_never_stop_serve(loopback: Loopback) -> None:
    few = ["sh", "-c", 'ulimit -n 128 && exec "$@"', "sh"]
    command = [sys.executable, "-m", "internvl_modal", "serve", "--backend", loopback.url]
    process = subprocess.Popen(
        [*few, *command, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "INTERNVL_MODAL_GATEWAY_KEY": KEY},
    )
    assert process.stderr
    try:
        line = process.stderr.readline()
        url = line.partition("listening on ")[2].strip()
        with ExitStack() as idle:
            for _ in range(10):
                process.send_signal(signal.SIGSTOP)  # so that it finds all twenty at once
                for _ in range(20):
                    idle.enter_context(connect(url)).sendall(b"GET /health HTTP/1.1\r\n")
                process.send_signal(signal.SIGCONT)
                assert httpx.get(f"{url}health", timeout=20).status_code == 200
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert said.count("GET /health 200") == 10
    assert "Traceback" not in said  # such as of descriptors that have run out


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", '{"messages":[' + ",".join(['{"role":"x"}'] * 500_000) + "]}"),
        (
            "/v1/chat/completions",
            '{"messages":[],"logit_bias":{' + '"1":[[]],' * 90_000 + '"2":1}}',
        ),
        ("/", "[" * 3_000_000),
        ("/", '{"image_data":"' + '\\"{[,' * 30_000 + '"}'),
        ("/", "[" * 9_000),
    ],
)
def test_millions_of_wrong_items(loopback: Loopback, path: str, body: str) -> None:
    with serving(app(loopback)) as url:
        answer = httpx.post(f"{url}{path}", content=body, headers=BEARER, timeout=60)
    assert answer.status_code == (400 if path.startswith("/v1") else 422)
    assert len(answer.content) < 2000
    assert not loopback.heard


@pytest.mark.parametrize("messages", [1_000, 2_000])
def test_at_most_ten_errors_are_told(loopback: Loopback, messages: int) -> None:
    body = {"messages": [{"role": "x"}] * messages}
    with serving(app(loopback)) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=BEARER, timeout=60)
    told = answer.json()["error"]["message"]
    assert 0 < told.count("role") <= 10
    assert len(told) < 2000


LEAKS = [
    "upstream-key",
    "Bearer upstream-key",
    '{"authorization": "Bearer upstream-key", "host": "127.0.0.1:1", "user-agent": "internvl-modal"}',
    "authorization: Basic dXNlcjpwYXNz",
    "Modal-Key=wk-123, Modal-Secret=ws-456",
    "see http://10.0.0.7:8000/v1/x?key=abc",
    "no route to 10.0.0.7:23333",
    "engine at [fe80::1]:80 and worker-3.internal:9000",
    "invalid api key sk-abcdefgh12345678",
    "token hf_abcdefgh12345678 is wrong",
]
SECRET = (
    "upstream",
    "dXNl",
    "wk-1",
    "ws-4",
    "10.0",
    "fe80",
    "worker-3",
    "abcdefgh",
    'user-agent": "i',
)


@pytest.mark.parametrize("words", LEAKS)
@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_server_says_is_told_without_keys_addresses_and_headers(
    loopback: Loopback, words: str, status: int, stream: bool
) -> None:
    said = {"error": {"message": f"It went wrong: {words}"}}
    loopback.will(Reply(status, said))
    with serving(app(loopback)) as url:
        body = {**CHAT, "stream": stream}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=BEARER, timeout=60)
    assert "It went wrong" in answer.text
    assert not [secret for secret in SECRET if secret in answer.text]
    assert str(httpx.URL(loopback.url).port) not in answer.text


def test_an_error_in_a_stream_is_told_without_keys_too(loopback: Loopback) -> None:
    words = json.dumps({"error": {"message": "upstream-key was wrong"}})
    loopback.will(Reply(chunks=[*stream_events("A ", "dog.")[:2], f"data: {words}\n\n".encode()]))
    with serving(app(loopback)) as url:
        body = {**CHAT, "stream": True}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=BEARER, timeout=60)
    assert "was wrong" in answer.text
    assert "upstream-key" not in answer.text


def test_a_server_that_is_gone_is_told_without_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = AsyncClient(f"http://127.0.0.1:{port}/v1", retry=Retry(attempts=1))
    with serving(create_app(client, api_key=KEY)) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=BEARER, timeout=60)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "the model's server does not answer"
    assert str(port) not in answer.text


def test_a_server_that_has_moved_is_told_without_its_address(loopback: Loopback) -> None:
    loopback.will(Reply(302, headers={"location": "https://inside.example/v1/chat/completions"}))
    with serving(create_app(AsyncClient(loopback.url), api_key=KEY)) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=BEARER, timeout=60)
    assert answer.status_code == 502
    assert "inside" not in answer.text
    assert "location" not in answer.headers
    assert len(loopback.chats) == 1


def test_the_client_is_closed_by_whoever_opened_it(loopback: Loopback) -> None:
    backend = Counting(loopback.url)
    client = AsyncClient(backend)
    with serving(create_app(client, api_key=KEY), closing=False) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=BEARER, timeout=60)
        assert answer.status_code == 200
    assert backend.stopped == 0
    asyncio.run(client.aclose())
    assert backend.stopped == 1


class Counting(FixedBackend):
    """Counts how often it is stopped."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "k", "internvl2_5-78b")
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1
