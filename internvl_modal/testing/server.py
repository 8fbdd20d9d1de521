"""A small server on loopback that speaks OpenAI's protocol as LMDeploy does, faults included."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from typing_extensions import Self

from internvl_modal.errors import ConfigError
from internvl_modal.testing.answers import Answer, Answers, Call, Script
from internvl_modal.testing.documents import call_of, completion, events, models, refusal

__all__ = ["FakeServer"]

MODEL = "internvl2_5-78b"
_NOTHING = {"detail": "Not Found"}


class FakeServer:
    """Answers at ``url`` from ``with`` or ``start`` on, on a free port of 127.0.0.1.

    ``answers``: one for every call, a list with one for each call, or a function of the ``Call``.
    ``api_key``: what requests must have; others get a 401. Prompt tokens are counted as InternVL
    counts them, from the pictures that arrive, so that ``description.seen`` is the real thing.

    >>> with FakeServer("A red cup.") as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self, answers: Answers = "A picture.", *, model: str = MODEL, api_key: str | None = None
    ) -> None:
        self.model = model
        self.api_key = api_key
        self._script = Script(answers)
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def will(self, answers: Answers) -> None:
        """Answer like this from now on; a list starts with its first. Raises ConfigError."""
        self._script.will(answers)

    @property
    def calls(self) -> list[Call]:
        """What was asked so far, in order; a list of its own."""
        return list(self._script.calls)

    @property
    def url(self) -> str:
        """The base URL, up to and including ``/v1``; raises ConfigError before ``start``."""
        if self._server is None:
            raise ConfigError("the fake server is not started", hint="use with, or start()")
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def start(self) -> None:
        """Listen; does nothing where it does so already."""
        with self._lock:
            if self._server is None:
                self._server = _Server(self)
                threading.Thread(
                    target=self._server.serve_forever, args=(0.02,), daemon=True
                ).start()

    def close(self) -> None:
        """Stop listening, and end what is delayed; safe to call twice."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.closing.set()
            server.shutdown()
            server.server_close()

    def answer(self, call: Call) -> Answer:
        """What is said to ``call``, which is remembered."""
        return self._script.answer(call)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FakeServer({self.url if self._server else 'not started'})"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: FakeServer) -> None:
        self.owner = owner
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        listed = self.path.partition("?")[0] == "/v1/models"
        self._whole(*(200, models(self.server.owner.model)) if listed else (404, _NOTHING))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        owner = self.server.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path.partition("?")[0] != "/v1/chat/completions":
            self._whole(404, _NOTHING)
        elif owner.api_key not in (None, headers.get("authorization", "").removeprefix("Bearer ")):
            self._whole(401, refusal(Answer("the key is wrong", status=401)))
        else:
            document = json.loads(body)
            self._said(document, _answered(owner, call_of(document, headers)))

    def _said(self, document: dict[str, Any], answer: Answer) -> None:
        self.server.closing.wait(answer.delay)
        # Who waits no longer has closed the connection.
        try:
            if answer.status >= 400:
                self._whole(answer.status, refusal(answer), answer)
            elif document.get("stream"):
                self._stream(events(document, answer), cut=answer.cut)
            else:
                self._whole(answer.status, completion(document, answer), answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _whole(self, status: int, document: object, answer: Answer | None = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if answer is not None and answer.retry_after is not None:
            self.send_header("retry-after", f"{answer.retry_after:g}")
        self.end_headers()
        cut = answer is not None and answer.cut
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def _stream(self, chunks: Iterator[bytes], *, cut: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def _answered(owner: FakeServer, call: Call) -> Answer:
    """The answer; where the test's own function fails, that is told and not asked for again."""
    try:
        return owner.answer(call)
    except Exception as error:  # noqa: BLE001 - of the function that a test has given
        return Answer(f"the function of the answers failed: {error!r}", status=400)
