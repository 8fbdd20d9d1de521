"""The description that a stream of events adds up to.

A proxy, an error page or a server that knows no streaming can stand where events were asked for,
and an error can come as an event after half of the answer. The bytes are therefore looked at before
they are believed, and what was streamed passes the same checks as a whole answer.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator

from internvl_modal.errors import EngineError, ServerError
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.completion import (
    Answer,
    conclude,
    first_choice,
    id_of,
    read_completion,
    reasoning_of,
    text_of,
    usage_of,
)
from internvl_modal.protocol.error_documents import is_error
from internvl_modal.protocol.error_responses import (
    WRONG_SERVER,
    error_from_response,
    error_within,
    unreadable,
)
from internvl_modal.protocol.http import HttpResponse, Json, json_of, read_json
from internvl_modal.protocol.kept_text import MOST, KeptText
from internvl_modal.protocol.reasoning import ReasoningCutter
from internvl_modal.protocol.sse import DONE, LONGEST_LINE, Event, EventDecoder
from internvl_modal.protocol.stop_sequences import StopCutter
from internvl_modal.schema.results import Description, Usage

_SHORT = 2**16


class CompletionStream:
    """Collects a streamed chat completion; ``finish`` checks it like any other answer.

    No I/O: pieces go in by ``feed``, text comes out, and ``finish`` is called once at the end. Not
    safe for several threads; a stream has one reader.
    """

    def __init__(self, call: ChatCall) -> None:
        self._call = call
        self._events = EventDecoder()
        self._body: bytes | None = b""
        """What came, until it is certain that it is no JSON document."""
        self._tried = 0
        """Bytes of it that were no whole document when it was last looked at."""
        self._whole: Answer | None = None
        self._raw = KeptText()
        self.logprobs: list[object] = []
        """As the server gives them, for the gateway, which takes them away."""
        self._reasoning = KeptText()
        self._refusal = KeptText()
        self._thoughts = ReasoningCutter()
        self._stops = StopCutter(call.options.stop)
        self._finish: object = None
        self._usage: Usage | None = None
        self._model: object = None
        self._told: Json = {}
        self._response = HttpResponse(200)
        self.request_id: str | None = None
        self.done = False
        """Whether the server has said that nothing more will come; it may keep the line open."""

    def thoughts(self) -> str:
        """What was thought since the last call, in a field of its own or in the text."""
        return self._reasoning.news() + self._thoughts.news()

    @property
    def held(self) -> int:
        """Bytes or characters of what has come and cannot be read yet: an open line or document."""
        return self._events.held + len(self._body or b"")

    def opened(self, response: HttpResponse) -> str | None:
        """The request id of a stream that began; raises what any other status means."""
        if response.status != 200:
            raise error_from_response(response)
        self._response = HttpResponse(200, response.headers)
        return response.request_id

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the text that ``chunk`` brings; raises ServerError for an error in it."""
        if self._body is not None:
            self._body = self._body + chunk
            start = self._body.removeprefix(BOM_UTF8).lstrip()
            # Too little to tell what it is: a byte order mark, blank lines, or a first piece of one
            # byte.
            if (not start or BOM_UTF8.startswith(self._body)) and len(self._body) < LONGEST_LINE:
                return
            # HTML: somebody's front page or a proxy's error. No event begins with an angle bracket.
            if start.startswith(b"<"):
                raise unreadable(HttpResponse(200, self._response.headers, start), "no events")
            # Bounded, as a JSON document without an end would otherwise be collected for ever.
            if start.startswith((b"{", b"[")) and len(start) < LONGEST_LINE:
                yield from self._document(start, last=not chunk)
                return
            chunk, self._body = self._body, None
        yield from self._pieces(self._events.feed(chunk))

    def finish(self) -> Description:
        """The description; raises EngineError when the stream ended before its end."""
        for _ in self.feed(b""):
            pass  # a document that has just become whole
        body, self._body = self._body, None
        if body:
            raise self._bad("no event", body.decode("utf-8", "replace"))
        for _ in self._pieces(self._events.feed(b"", final=True)):
            pass  # pieces that nobody can be given any more are part of the text all the same
        if self._whole is not None:
            return conclude(self._whole, self._call)
        text = str(self._raw)
        # Neither ``[DONE]`` nor a finish reason: the connection ended in the middle, and TCP cannot
        # tell that from an end. What came so far is in ``.text``.
        if not self.done and self._finish is None:
            raise EngineError(
                f"the stream ended early, after {len(text)} characters",
                hint="see the server's log; the same request may work again",
                status=200,
                request_id=self.request_id,
                text=text,
            )
        answer = Answer(
            text=text,
            # The client ends a stream at its own stop string, before the server has said why it
            # ends.
            finish_reason="stop" if self._stops.stopped else self._finish,
            usage=self._usage,
            model=self._model,
            request_id=self.request_id,
            reasoning=str(self._reasoning),
            refusal=str(self._refusal),
            body=self._told,
        )
        return conclude(answer, self._call)

    def _document(self, body: bytes, *, last: bool) -> Iterator[str]:
        """A JSON document where a stream was asked: an error, or a whole completion."""
        # A long one is looked at when it has grown by half, or ended: after every piece would be
        # quadratic.
        if not last and _SHORT < len(body) < 1.5 * self._tried:
            return
        self._tried = len(body)
        if not body.rstrip().endswith((b"}", b"]")) or json_of(body) is None:
            return  # there is more to come
        self._body, self.done = None, True
        self._whole = read_completion(HttpResponse(200, self._response.headers, body))
        self.request_id = self.request_id or self._whole.request_id
        text = self._cut(self._whole.text) + self._rest()
        if text:
            yield text

    def _pieces(self, events: Iterable[Event]) -> Iterator[str]:
        """Yield the text of each event until the server has said that it is done."""
        for event in events:
            if self.done:
                return
            self.done = event.data.strip() == DONE
            piece = "" if self.done else self._cut(self._taken(event))
            if self.done:
                piece += self._rest()
            if piece:
                yield piece

    def _cut(self, text: str) -> str:
        """The part of ``text`` that is answer and stands before any stop string."""
        return self._stops.feed(self._thoughts.feed(text))

    def _rest(self) -> str:
        return self._stops.feed(self._thoughts.finish()) + self._stops.finish()

    def _taken(self, event: Event) -> str:
        return "".join(self._take(document) for document in self._documents(event))

    def _documents(self, event: Event) -> Iterator[Json]:
        """The objects in an event: one, or one a line where blank lines are missing."""
        if not event.data.strip():  # keeps the connection alive
            return
        whole = _loaded(event.data)
        for line in [event.data] if whole is not ... else event.data.splitlines():
            if line.strip() == DONE:
                self.done = True
                return
            document = _loaded(line)
            if event.kind == "error":
                yield _as_error(document, line)
            elif isinstance(document, dict):
                yield document
            # A kind that the caller did not ask for may have data of any form.
            elif document is ... and event.kind not in ("", "message"):
                continue  # another protocol's business, such as pings
            elif document is not None:
                what = "that is not JSON" if document is ... else "that is no object"
                raise self._bad(f"an event {what}", line)

    def _take(self, event: Json) -> str:
        """Note all that an event tells, and return its text; raises the error that it may hold."""
        if is_error(event):
            said = HttpResponse(200, self._response.headers, json.dumps(event).encode())
            if (error := error_within(event, said, str(self._raw))) is not None:
                raise error
        # The last one counts: vLLM can send running counts with every event.
        self._usage = usage_of(event.get("usage")) or self._usage
        self._model = event.get("model") or self._model
        self._told = event if "seen" in event else self._told
        self.request_id = self.request_id or id_of(event)
        choice = first_choice(event)
        if choice is None:
            return ""
        self._finish = choice.get("finish_reason") or self._finish
        told = choice.get("logprobs")
        entries = told.get("content") if isinstance(told, dict) else None
        if self._call.relayed is not None and isinstance(entries, list):
            self.logprobs += entries
        # Some routers put a whole message into the only event of a stream.
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, dict):
            return ""
        text = text_of(delta.get("content"))
        # With its thoughts: ``conclude`` cuts them again, so that streams and whole answers agree.
        found = (self._raw, text), (self._reasoning, reasoning_of(delta))
        for kept, new in (*found, (self._refusal, text_of(delta.get("refusal")))):
            kept.add(new)
        if len(self._raw) + len(self._reasoning) + len(self._refusal) > MOST:
            raise self._bad(f"more than {MOST // 1024} KiB of text", text)
        return text

    def _bad(self, what: str, data: str) -> ServerError:
        return ServerError(
            f"the stream held {what}: {data[:100]!r}",
            hint=WRONG_SERVER,
            status=200,
            # As much as a whole answer's error keeps.
            body=data[:2000],
            request_id=self.request_id,
            text=str(self._raw),
        )


def decode_events(response: HttpResponse, call: ChatCall) -> tuple[Description, list[object]]:
    """A whole answer that came as a stream, and its tokens' probabilities as the server has them.

    Raises what a stream raises.
    """
    collected = CompletionStream(call)
    collected.request_id = collected.opened(response)
    for _ in collected.feed(response.body):
        pass
    return collected.finish(), collected.logprobs


def _as_error(document: object, line: str) -> Json:
    """The data of an event that says it is an error, in the shape of all errors."""
    if not isinstance(document, dict):
        return {"error": {"message": line}}
    return document if document.get("error") else {"error": document}


def _loaded(text: str) -> object:
    """``text`` as JSON, ``...`` where it is none."""
    try:
        return read_json(text)
    except ValueError:
        return ...
