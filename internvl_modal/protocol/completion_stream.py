"""The description that a stream of events adds up to."""

from __future__ import annotations

import json
from collections.abc import Iterator

from internvl_modal.errors import EngineError, ServerError
from internvl_modal.protocol.chat_request import ChatCall
from internvl_modal.protocol.completion import Answer, conclude, id_of, text_of, usage_of
from internvl_modal.protocol.error_responses import error_from_response
from internvl_modal.protocol.http import HttpResponse, Json
from internvl_modal.protocol.sse import EventDecoder
from internvl_modal.protocol.stop_sequences import StopCutter
from internvl_modal.schema.results import Description, Usage


class CompletionStream:
    """Collects a streamed chat completion; ``finish`` checks it like any other answer."""

    def __init__(self, call: ChatCall) -> None:
        self._call = call
        self._events = EventDecoder()
        self._text: list[str] = []
        self._stops = StopCutter(call.options.stop)
        self._finish: object = None
        self._usage: Usage | None = None
        self._model: object = None
        self._proof: Json = {}
        self._done = False
        self.request_id: str | None = None

    @property
    def done(self) -> bool:
        """Whether the server has said all, though its connection may stay open."""
        return self._done

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the text that ``chunk`` brings; raises ServerError for an error event."""
        for data in self._events.feed(chunk):
            if self._done:
                return
            self._done = data.strip() == "[DONE]"
            piece = self._stops.finish() if self._done else self._stops.feed(self._take(data))
            if piece:
                self._text.append(piece)
                yield piece

    def finish(self) -> Description:
        """The description; raises EngineError when the stream ended before ``[DONE]``."""
        if not self._done:
            raise EngineError(
                f"the stream ended early, after {sum(map(len, self._text))} characters",
                hint="see the server's log; the same request may work again",
                status=200,
                request_id=self.request_id,
            )
        finish = "stop" if self._stops.stopped else self._finish
        text = "".join(self._text)
        answer = Answer(text, finish, self._usage, self._model, self.request_id, self._proof)
        return conclude(answer, self._call)

    def _take(self, data: str) -> str:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._bad("an event that is not JSON", data) from error
        if not isinstance(event, dict):
            raise self._bad("an event that is no object", data)
        if event.get("object") == "error" or event.get("error"):
            code = event.get("code")
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise error_from_response(HttpResponse(status, {}, data.encode()))
        self._usage = usage_of(event.get("usage")) or self._usage
        self._model = event.get("model") or self._model
        self._proof = event if "seen" in event else self._proof
        self.request_id = self.request_id or id_of(event)
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta")
        return text_of(delta.get("content")) if isinstance(delta, dict) else ""

    def _bad(self, what: str, data: str) -> ServerError:
        return ServerError(
            f"the stream held {what}: {data[:100]!r}",
            hint="check that the base URL is that of an OpenAI-compatible server",
            status=200,
            body=data[:2000],
            request_id=self.request_id,
        )
