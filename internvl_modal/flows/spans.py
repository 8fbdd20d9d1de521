"""Spans of OpenTelemetry for each call, under the names of its conventions for generative AI.

Nothing is imported for them: a program that traces has loaded ``opentelemetry.trace`` by itself,
and for all others a call costs one look into ``sys.modules``. Neither prompts nor answers are told.
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from internvl_modal.protocol.call import ChatCall
from internvl_modal.schema.results import Description
from internvl_modal.transport.exchange import Exchange

__all__ = ["ChatSpan"]

T = TypeVar("T")


class ChatSpan:
    """One call's span, and below it "prepare", "send" and "wait"; does nothing untraced.

    The call began at ``begun``, with ``prepared`` seconds for its pictures. "send" lasts until the
    server begins to stream, "wait" until the first token or, where the answer comes as a whole,
    until that is there. Moments are ``time.monotonic``'s.
    """

    def __init__(self, call: ChatCall, begun: float, prepared: float) -> None:
        self._trace: Any = sys.modules.get("opentelemetry.trace")
        self._since = self._begun = begun
        self._span: Any = None
        if self._trace is not None:
            self._tracer = self._trace.get_tracer("internvl_modal")
            self._span = self._tracer.start_span(
                f"chat {call.model}",
                kind=self._trace.SpanKind.CLIENT,
                start_time=_nanoseconds(begun),
                attributes={k: v for k, v in _asked(call).items() if v is not None},
            )
        if prepared:
            self.done("prepare", prepared)

    def __enter__(self) -> ChatSpan:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            self.failed(error)
        self.end()

    def carried(self, step: Exchange[T]) -> Exchange[T]:
        """``step`` with the headers by which the server joins this trace, such as traceparent."""
        if self._span is None:
            return step
        from opentelemetry.propagate import inject

        headers: dict[str, str] = dict(step.request.headers)
        inject(headers, self._trace.set_span_in_context(self._span))
        return replace(step, request=replace(step.request, headers=headers))

    def done(self, name: str, seconds: float | None = None) -> None:
        """A part ends: after ``seconds``, or now. The next one begins where it ends."""
        until = time.monotonic() if seconds is None else self._since + seconds
        if self._span is not None:
            above = self._trace.set_span_in_context(self._span)
            part = self._tracer.start_span(
                name, context=above, start_time=_nanoseconds(self._since)
            )
            part.end(_nanoseconds(until))
        self._since = until

    def first_token(self) -> None:
        """The first piece of a stream is there."""
        self.done("wait")
        if self._span is not None:
            passed = self._since - self._begun
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", passed)

    def answered(self, answer: Description) -> None:
        """What the answer says of itself."""
        if self._span is not None:
            self._span.set_attributes(_answered(answer))

    def failed(self, error: BaseException) -> None:
        """The call raises ``error``; its text is not told, as a server may quote the prompt."""
        if self._span is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))

    def end(self) -> None:
        """The call is over."""
        if self._span is not None:
            self._span.end()


def _asked(call: ChatCall) -> dict[str, Any]:
    options, server = call.options, urlsplit(call.endpoint.base_url)
    names = ("max_tokens", "temperature", "top_p", "top_k", "seed")
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": call.capabilities.dialect,
        "gen_ai.request.model": call.model,
        **{f"gen_ai.request.{name}": getattr(options, name) for name in names},
        "gen_ai.request.stop_sequences": options.stop or None,
        "server.address": server.hostname,
        "server.port": server.port,
        "internvl_modal.pictures": len(call.images),
        "internvl_modal.tiles": sum(image.info.tiles for image in call.images),
    }


def _answered(answer: Description) -> dict[str, Any]:
    return {
        "gen_ai.response.model": answer.model,
        "gen_ai.response.finish_reasons": (answer.finish_reason,),
        "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
        "internvl_modal.seen": answer.seen,
    }


def _nanoseconds(moment: float) -> int:
    """A moment of ``time.monotonic`` on the clock of the world."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
