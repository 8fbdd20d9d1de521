"""A download ends when its time is up, whatever trickles."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from internvl_modal.errors import ImageError, OutOfResourcesError
from internvl_modal.images.fetch import fetch

SECONDS = 1.0
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@contextmanager
def server(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Hands every connection to ``talk`` on 127.0.0.1; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):  # the client hangs up
                talk(connection)

        def accept() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def trickle(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Send ``start``, then ``piece`` ten times a second, without end."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(0.1)

    return talk


def late(url: str) -> float:
    begun = time.monotonic()
    with pytest.raises(ImageError, match="not there within 1 s"):
        fetch(url, timeout=SECONDS, max_bytes=10**6, allow_private=True)
    return time.monotonic() - begun


TRICKLES = {
    "nothing": trickle(b"", b""),
    "status line": trickle(b"HTTP/1.1 200 ", b"O"),
    "a header": trickle(OK + b"X: ", b"a"),
    "headers": trickle(OK, b"X: a\r\n"),
    "interim answers": trickle(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "body": trickle(OK + b"content-length: 9000\r\n\r\n", b"a"),
    "body without length": trickle(OK + b"\r\n", b"a"),
    "chunks": trickle(CHUNKED, b"1\r\na\r\n"),
    "a chunk's header": trickle(CHUNKED, b"0"),
    "trailers": trickle(CHUNKED + b"1\r\na\r\n0\r\n", b"X: a\r\n"),
}


@pytest.mark.parametrize("what", TRICKLES)
def test_what_trickles(what: str) -> None:
    with server(TRICKLES[what]) as port:
        assert late(f"http://127.0.0.1:{port}/a.png") < 3 * SECONDS


@pytest.mark.parametrize("piece", [b"", b"\x16\x03\x01\x40\x00" + bytes(10)])
def test_a_tls_handshake_that_trickles(piece: bytes) -> None:
    pieces = iter(piece)

    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        for byte in itertools.chain(pieces, itertools.repeat(0)):
            connection.sendall(bytes([byte]) if piece else b"")
            time.sleep(0.1)

    with server(talk) as port:
        assert late(f"https://127.0.0.1:{port}/a.png") < 3 * SECONDS


def test_redirects_that_each_take_their_time() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        time.sleep(0.4)
        connection.sendall(b"HTTP/1.1 302 F\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n")

    with server(talk) as port:
        assert late(f"http://127.0.0.1:{port}/a.png") < 3 * SECONDS


def test_a_name_that_nobody_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer keeps ``getaddrinfo`` for half a minute."""
    asked = threading.Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        asked.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert late("http://slow.test/a.png") < 3 * SECONDS
    asked.set()


STARVED = """
import os, resource, sys
from internvl_modal.errors import OutOfResourcesError
from internvl_modal.images import prepare
from internvl_modal.images.fetch import fetch
assert fetch(sys.argv[2], timeout=5, allow_private=True) == b""  # so that all is imported
taken = len(os.listdir("/proc/self/fd")) - 1
resource.setrlimit(resource.RLIMIT_NOFILE, (taken, taken))
for source in sys.argv[1:]:
    try:
        prepare(source, fetch=fetch, timeout=5, allow_private_urls=True)
    except OutOfResourcesError as error:
        print("ours:", error)
"""


def test_no_descriptors_are_nobodys_pictures_fault() -> None:
    with server(trickle(OK + b"content-length: 0\r\n\r\n", b"")) as port:
        sources = [__file__, f"http://127.0.0.1:{port}/a.png"]
        done = subprocess.run(
            [sys.executable, "-c", STARVED, *sources], capture_output=True, text=True, check=False
        )
    assert done.stdout.count("ours:") == 2, done.stderr
    assert "Too many open files" in done.stdout
    assert not issubclass(OutOfResourcesError, ImageError)
