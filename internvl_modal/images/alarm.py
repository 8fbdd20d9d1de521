"""A wall clock for connections: time-outs of a socket start anew with every byte that trickles.

A server that sends a byte every few seconds never meets a read timeout. Shutting the socket from
another thread wakes whoever reads it, which no timeout of a library does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from types import TracebackType
from typing import Any


class Alarm:
    """Cuts the connections it watches when ``seconds`` are over, whoever waits for them.

    ``rang`` tells an end by the clock from an end by the server: both look like a broken
    connection. Used once, in ``with``; safe for the thread that reads and the timer's.
    """

    def __init__(self, seconds: float) -> None:
        self.rang = False
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.name = "internvl-alarm"
        self._timer.daemon = True

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """Take note of each connection; httpx calls this as its ``trace``."""
        if event != "connection.connect_tcp.complete":
            return
        # httpcore's stream; the event comes once for each connection, before TLS.
        connection = info["return_value"].get_extra_info("socket")
        # A second descriptor: a TLS handshake takes the first one away from its socket.
        double = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._watched.append(double)
            if self.rang:
                _cut(double)

    def _ring(self) -> None:
        with self._lock:
            # Before the sockets: whoever is woken looks at it.
            self.rang = True
            for connection in self._watched:
                _cut(connection)

    def __enter__(self) -> Alarm:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for connection in self._watched:
                connection.close()
            self._watched.clear()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
