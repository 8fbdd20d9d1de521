"""What ends a container: a server that died, hangs, or sees no picture any more."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from internvl_modal.deployment.watchdog import Watchdog, ask_one_token, requests_run

LINE = 'INFO:     127.0.0.1:1 - "POST /v1/chat/completions HTTP/1.1" 200 OK'


class Running:
    """A server that runs until ``code`` is set."""

    code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def tail(self) -> str:
        return ""


class Hanging(http.server.BaseHTTPRequestHandler):
    """Takes requests; answers when ``answers`` is set."""

    answers = threading.Event()

    def do_POST(self) -> None:
        self.answers.wait()
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    Hanging.answers.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hanging)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        Hanging.answers.set()
        server.shutdown()
        server.server_close()


def dog(port: int, liveness: float = 1.0, seen: list[str] | None = None) -> Watchdog:
    def look() -> None:
        if seen is not None:
            seen.append("looked")
            if len(seen) > 1:
                raise ValueError("the picture was not seen")

    return Watchdog(
        "lmdeploy",
        liveness=liveness,
        ask=lambda: ask_one_token(port, "k", "m", liveness),
        look=look,
    )


def later(seconds: float, action: object, *arguments: object) -> None:
    threading.Timer(seconds, action, arguments).start()  # type: ignore[arg-type]


def test_a_server_that_hangs_while_a_request_runs(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert dog(port).watch(Running(), port).startswith("lmdeploy hangs: nothing has come back")


def test_a_server_that_answers_is_left_alone(port: int) -> None:
    """A long streamed answer writes no line, but the one token comes."""
    Hanging.answers.set()
    running = Running()
    later(5, setattr, running, "code", 7)
    with socket.create_connection(("127.0.0.1", port)):
        assert dog(port).watch(running, port) == "lmdeploy ended with code 7"


def test_a_server_that_nobody_asks_is_asked_nothing(port: int) -> None:
    running = Running()
    later(4, setattr, running, "code", 0)
    assert dog(port).watch(running, port) == "lmdeploy ended with code 0"
    assert not requests_run(port)


def test_it_can_be_turned_off(port: int) -> None:
    running = Running()
    later(4, setattr, running, "code", 0)
    with socket.create_connection(("127.0.0.1", port)):
        assert dog(port, liveness=0).watch(running, port) == "lmdeploy ended with code 0"


def test_the_first_and_the_hundredth_answer_are_followed_by_a_look(port: int) -> None:
    seen: list[str] = []
    watching = dog(port, liveness=0, seen=seen)

    def answer() -> None:
        watching.heed('"GET /v1/models HTTP/1.1" 200 OK')
        watching.heed(LINE.replace("200 OK", "400 Bad Request"))
        time.sleep(1)
        assert seen == []
        for count in range(1, 102):  # the looks are answers of their own
            watching.heed(LINE)
            if count == 2:
                time.sleep(2)
                assert seen == ["looked"]

    threading.Thread(target=answer).start()
    why = watching.watch(Running(), port)
    assert why == "lmdeploy no longer describes a picture: the picture was not seen"
    assert seen == ["looked", "looked"]
