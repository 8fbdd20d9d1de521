"""Ends a container whose model server has died, hangs, or has gone blind. Standard library only.

Modal pays no heed to what the engine does: a server that hangs takes requests, and is paid for.

Three faults that Modal cannot see: the process has ended but the container lives on its web
server's port; it accepts requests and answers none; it answers without looking at pictures. In each
case ending the container is the remedy: Modal starts another one for the next request.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

ANSWERED = re.compile(r'"POST /v1/(?:chat/)?completions\S* HTTP/[\d.]+" 200')
"""A line of the server's access log: an answer, or the beginning of a streamed one."""
LOOKED_AT = (1, 100)
"""After so many answers the server must see a picture once more: kernels that are compiled with the
first, memory that leaks.

Not regularly: each look costs a user's place in the batch.
"""
ESTABLISHED = "01"
"""Of the column "st" in /proc/net/tcp."""


class Server(Protocol):
    """A process that serves a model."""

    def poll(self) -> int | None:
        """Exit code, None while it runs."""

    def tail(self) -> str:
        """Its last lines."""


class Watchdog:
    """Watches over one server; ``liveness`` in seconds, 0: whether it hangs is not asked.

    While requests run and nothing has come back for ``liveness`` seconds, it is asked for one
    token; if nothing comes back for as long again, it hangs. ``look`` shows it a picture and raises
    what speaks against it.

    ``heed`` is called by the thread that reads the log, ``watch`` runs in one of its own; counters
    are plain integers, as nothing depends on a single one of them.
    """

    def __init__(
        self, name: str, *, liveness: float, ask: Callable[[], None], look: Callable[[], None]
    ) -> None:
        self._name, self._liveness, self._ask, self._look = name, liveness, ask, look
        self._answers = 0
        self._own = 0
        self._heard = time.monotonic()
        self._due = list(LOOKED_AT)
        self._blind = ""

    def heed(self, line: str) -> None:
        """Take one line of the server's log."""
        if ANSWERED.search(line):
            self._answers += 1
            # An answer to us is a sign of life like any other.
            self._heard = time.monotonic()

    def begin(self) -> None:
        """Count from here: what was answered before was the warm-up."""
        self._answers, self._heard = 0, time.monotonic()

    def watch(self, server: Server, port: int) -> str:
        """Return why the server is of no use any more."""
        asked: float | None = None
        while (code := server.poll()) is None:
            time.sleep(0.5)
            if self._blind:
                return self._blind
            # Our own questions are in the log as well, and must not count as users'.
            if self._due and self._answers - self._own >= self._due[0]:
                self._due.pop(0)
                self._beside(self._see)
            quiet = time.monotonic() - self._heard
            # Silence alone is no fault: nobody may be asking.
            if not self._liveness or quiet < self._liveness or not requests_run(port):
                asked = None
            elif asked is None:
                asked = time.monotonic()
                # In a thread: a server that hangs would hang this one as well.
                self._beside(self._one_token)
            elif time.monotonic() - asked > self._liveness:
                return f"{self._name} hangs: nothing has come back for {quiet:.0f} s"
        return f"{self._name} ended with code {code}"

    def _beside(self, work: Callable[[], None]) -> None:
        self._own += 1
        threading.Thread(target=work, daemon=True).start()

    def _one_token(self) -> None:
        try:
            self._ask()
        except OSError as error:
            print(f"asked for one token: {error}", flush=True)  # noqa: T201
        else:
            self._heard = time.monotonic()

    def _see(self) -> None:
        try:
            self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, the watching thread tells it
            self._blind = f"{self._name} no longer describes a picture: {error}"


def ask_one_token(port: int, key: str, model: str, timeout: float) -> None:
    """One token of text from the server on this machine; raises OSError.

    Text only: a picture would wait for the ViT's one thread, which may be rightly busy.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=timeout) as response:
        response.read()


def requests_run(port: int) -> bool:
    """Whether somebody holds a connection to ``port``; yes where the system does not tell.

    The kernel's own tables, since nothing but the standard library is certain to be there.
    """
    found = False
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
        found = True
        for _, local, _, state, *_ in rows:
            if state == ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                return True
    return not found


def end_container(why: str, tail: str) -> None:
    """End this container: one that cannot answer must take no requests.

    ``os._exit``: a normal exit would wait for threads that hang with the server.
    """
    print(f"{why}; its last lines:\n{tail}", flush=True)  # noqa: T201
    os._exit(1)
