"""Steps of a flow, and the two loops that perform them.

A flow never touches a socket or a thread; it yields what it wants done and is sent what came of it.
So the order of steps, and what happens when one fails, is written and tested once, and the clients
differ in two loops of a dozen lines.

>>> def flow():
...     return (yield Blocking(lambda: 21)) * 2
>>> drive(flow(), perform=lambda step: step)
42
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from internvl_modal.errors import ConfigError
from internvl_modal.flows.spans import ChatSpan
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.chat_request import answer_bytes, chat_request
from internvl_modal.protocol.completion import decode_completion
from internvl_modal.protocol.completion_stream import CompletionStream, decode_events
from internvl_modal.protocol.dialects.registry import dialect_of
from internvl_modal.protocol.http import HttpRequest, HttpResponse, Json
from internvl_modal.schema.results import Description, Timings
from internvl_modal.transport.exchange import Exchange, Exchanged

T = TypeVar("T")


@dataclass(frozen=True)
class Blocking(Generic[T]):
    """A blocking function to call, in a thread where an event loop runs.

    Reading files, decoding pictures, starting backends: whatever may take longer than a few ms.
    """

    function: Callable[[], T]


Flow: TypeAlias = Generator[Blocking[Any] | Exchange[Any], Any, T]


def exchange_of(
    call: ChatCall,
    request: HttpRequest,
    decode: Callable[[HttpResponse], T],
    deadline: float,
    *,
    stream: CompletionStream | None = None,
) -> Exchange[T]:
    """The step that asks ``call``, with what is known of its answer beforehand."""
    return Exchange(
        call.endpoint.base_url,
        request,
        decode,
        deadline,
        most=answer_bytes(call, stream=stream is not None),
        held=(lambda: 0) if stream is None else lambda: stream.held,
        startup=call.endpoint.startup,
        others=call.endpoint.others,
    )


def chat_step(call: ChatCall, deadline: float, schema: Json | None = None) -> Exchange[Description]:
    """The step that asks ``call`` for a description; ``schema`` holds the answer where it can."""
    if dialect_of(call.capabilities).as_stream:
        return events_step(call, deadline, lambda answer: decode_events(answer, call)[0], schema)
    decode, request = partial(decode_completion, call=call), chat_request(call, schema=schema)
    return exchange_of(call, request, decode, deadline)


def events_step(
    call: ChatCall,
    deadline: float,
    decode: Callable[[HttpResponse], T],
    schema: Json | None = None,
) -> Exchange[T]:
    """The step that asks for a stream and reads it as a whole; see ``Dialect.as_stream``."""
    step = exchange_of(call, chat_request(call, stream=True, schema=schema), decode, deadline)
    return replace(step, most=answer_bytes(call, stream=True), events=True)


def timed(done: Exchanged[Description], begun: float, prepared: float) -> Description:
    """What was sent, with its timings: ``begun`` in monotonic seconds, ``prepared`` in seconds."""
    timings = Timings(
        prepare=prepared,
        total=time.monotonic() - begun,
        attempts=done.attempts,
        resent=done.resent,
    )
    return done.value.model_copy(update={"timings": timings})


def described(call: ChatCall, deadline: float, begun: float, prepared: float) -> Flow[Description]:
    """Ask ``call`` once; see ``timed``."""
    return timed((yield from sent(call, deadline, None, begun, prepared)), begun, prepared)


def sent(
    call: ChatCall,
    deadline: float,
    schema: Json | None = None,
    begun: float | None = None,
    prepared: float = 0.0,
) -> Flow[Exchanged[Description]]:
    """Perform ``chat_step``, traced: from ``begun``, monotonic seconds, or else from now on."""
    since = time.monotonic() if begun is None else begun
    with ChatSpan(call, since, prepared) as span:
        step = span.carried(chat_step(call, deadline, schema))
        done: Exchanged[Description] = yield step
        span.done("wait")
        span.answered(done.value)
    return done


def drive(flow: Flow[T], perform: Callable[[Exchange[Any]], Exchanged[Any]]) -> T:
    """What ``flow`` returns, each of its steps performed in this thread.

    Whatever a step raises, Ctrl-C included, is raised inside the flow, which so comes to an end.
    """
    try:
        step = next(flow)
        while True:
            try:
                result = step.function() if isinstance(step, Blocking) else perform(step)
            except BaseException as error:  # noqa: BLE001 - the flow decides
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as done:
        value: T = done.value
        return value


async def adrive(
    flow: Flow[T],
    perform: Callable[[Exchange[Any]], Awaitable[Exchanged[Any]]],
    call: Callable[[Callable[[], Any]], Awaitable[Any]] = asyncio.to_thread,
) -> T:
    """``drive`` in an event loop; ``call`` performs blocking steps beside it.

    Cancelling it raises CancelledError inside the flow at its present step; a blocking step goes on
    in its thread, and what it returns is dropped.
    """
    _needs_asyncio()
    try:
        step = next(flow)
        while True:
            try:
                # One step at a time: a flow depends on the result of each step for its next.
                result = await (
                    call(step.function) if isinstance(step, Blocking) else perform(step)
                )
            except BaseException as error:  # noqa: BLE001 - the flow decides
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as done:
        value: T = done.value
        return value


def _needs_asyncio() -> None:
    """Raise ConfigError where no event loop of asyncio runs, as under trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "this runs in asyncio's event loop, and none runs here",
            hint="use a Client in a thread, with trio.to_thread.run_sync for instance",
        ) from None
