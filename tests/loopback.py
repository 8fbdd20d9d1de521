"""An HTTP server on 127.0.0.1 that says what a test wants and records what it hears."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Heard:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer: ``chunks`` are sent one by one, ``pause`` seconds before each.

    ``cut`` closes the connection without a proper end.
    """

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] | None = None
    pause: float = 0.0
    cut: bool = False

    @property
    def data(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


def completion(
    text: str = "A cat.",
    *,
    finish: str | None = "stop",
    prompt_tokens: int = 5000,
    completion_tokens: int = 3,
    model: str = "internvl2_5-78b",
    **more: Any,
) -> dict[str, Any]:
    """A chat completion as a server says it."""
    return {
        "id": "1",
        "object": "chat.completion",
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
        **more,
    }


def event(document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def stream_events(
    *pieces: str, finish: str = "stop", prompt_tokens: int = 5000, done: bool = True
) -> list[bytes]:
    """A streamed completion, one chunk per event; without ``done`` it breaks off."""
    events = [
        event({"model": "m", "choices": [{"delta": {"content": p}, "finish_reason": None}]})
        for p in pieces
    ]
    if not done:
        return events
    events.append(event({"choices": [{"delta": {}, "finish_reason": finish}]}))
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(pieces)}
    return [*events, event({"choices": [], "usage": usage}), b"data: [DONE]\n\n"]


def models_list(owner: str = "lmdeploy", *names: str) -> dict[str, Any]:
    data = [{"id": name, "object": "model", "owned_by": owner} for name in names or ("internvl",)]
    return {"object": "list", "data": data}


ASIDES = ("/models", "/health", "/openapi.json")

Answer = Reply | Callable[[Heard], Reply]


class Loopback:
    """Serves ``GET /v1/models`` from ``models`` and everything else from ``replies``, in order.

    The last reply is repeated. ``asides`` answers ``/health`` and ``/openapi.json``.
    """

    def __init__(self) -> None:
        self.models: Answer = Reply(body=models_list())
        self.asides: dict[str, Answer] = {}
        self.replies: list[Answer] = [Reply(body=completion())]
        self.heard: list[Heard] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    def will(self, *replies: Answer) -> None:
        self.replies = list(replies)

    @property
    def chats(self) -> list[Heard]:
        """Everything but the questions who answers and with which models."""
        return [heard for heard in self.heard if not heard.path.endswith(ASIDES)]

    def answer(self, heard: Heard) -> Reply:
        with self._lock:
            self.heard.append(heard)
            answer: Answer
            if heard.path.endswith("/models"):
                answer = self.models
            elif heard.path.endswith(ASIDES):
                answer = self.asides.get(heard.path, Reply(404))
            else:
                answer = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return answer if isinstance(answer, Reply) else answer(heard)

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: Loopback
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        heard = Heard(self.command, self.path, headers, self.rfile.read(length))
        reply = self.owner.answer(heard)
        try:
            self._send(reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = _serve

    def _send(self, reply: Reply) -> None:
        if reply.cut and reply.chunks is None:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        chunked = reply.chunks is not None
        self.send_header(*(("transfer-encoding", "chunked") if chunked else self._length(reply)))
        self.end_headers()
        for chunk in reply.chunks if reply.chunks is not None else [reply.data]:
            time.sleep(reply.pause)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunked else chunk)
            self.wfile.flush()
        if reply.cut:
            self.close_connection = True
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def _length(reply: Reply) -> tuple[str, str]:
        return "content-length", str(len(reply.data))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""
