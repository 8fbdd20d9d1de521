"""What a client does, as steps: the same for ``Client`` and ``AsyncClient``.

A flow is a generator that yields steps and is sent their results: ``Blocking`` (a blocking
function) and ``Send`` (one HTTP exchange). The clients differ only in how they perform a step.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from internvl_modal.errors import ConfigError, EngineError, RequestRejectedError
from internvl_modal.flows.discovery import Ready, discover, models_step, settle_tiles
from internvl_modal.flows.steps import Blocking, Flow, exchange_of
from internvl_modal.flows.turns import (
    checked_messages,
    fetched,
    one_turn,
    prepared_turns,
    with_system,
)
from internvl_modal.protocol import structured_output
from internvl_modal.protocol.answer_warnings import cut_off
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.chat_request import chat_request
from internvl_modal.protocol.completion import decode_completion
from internvl_modal.protocol.completion_stream import CompletionStream
from internvl_modal.protocol.dialects.registry import dialect_of
from internvl_modal.protocol.endpoint import Backend, Capabilities, Endpoint, preview
from internvl_modal.protocol.http import Json
from internvl_modal.schema.inputs import ImageInputs, ImageSource, Message
from internvl_modal.schema.options import DescribeOptions, Options
from internvl_modal.schema.results import Description, Estimate, Timings, Usage
from internvl_modal.transport.exchange import Exchange, Exchanged
from internvl_modal.transport.retry import Retry

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

TIMEOUT = 600.0
"""Seconds for a call where nobody says how many; a cold start on Modal takes minutes."""
_REFUSALS = (400, 422, 501)
"""Statuses of a request that holds something which the server does not know."""
_SCHEMA_WORDS = re.compile(
    r"response.?format|json.?schema|structured.?output|grammar|guided|requested parameters", re.I
)
"""In the words of other statuses; the last is OpenRouter's 404 where no provider takes one."""


class Asked(NamedTuple):
    """A call ready to be sent, when to give up, and the seconds its pictures took."""

    call: ChatCall
    deadline: float
    prepared: float


@dataclass(frozen=True)
class Wanted(Generic[T]):
    """An object that an answer shall hold, and how often a wrong one is sent back."""

    document: Json
    """Its JSON schema."""
    read: Callable[[Json], T]
    """Raises ValueError with the reason where an object is not wanted."""
    repairs: int = 2


@dataclass(frozen=True)
class Typed(Generic[T]):
    """What was read from the last answer, that answer with the tokens of all, and what is wrong."""

    found: T | None
    answer: Description
    why: str = ""


class Opened(NamedTuple):
    """A streamed call: the step that opens it and what collects its chunks."""

    step: Exchange[str | None]
    collected: CompletionStream
    begun: float
    prepared: float


class Core:
    """The flows of one client; holds its backend and what is known of its endpoint."""

    def __init__(
        self,
        backend: Backend,
        *,
        model: str | None,
        timeout: float | None,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.backend = backend
        self._model = model
        self._timeout = timeout
        self._capabilities = capabilities
        self._refused: set[str] = set()
        """JSON schemas that the server has refused; "" stands for all of them."""
        self._ready: Ready | None = None
        self._closed = threading.Event()

    def start(self) -> Endpoint:
        """Start the backend unless it runs; raises ConfigError once the client is closed."""
        if not self._closed.is_set():
            endpoint = self.backend.start()
            if not self._closed.is_set():
                return endpoint
            self.backend.stop()  # it has just started, after the client told it to stop
        raise ConfigError("the client is closed", hint="make a new one")

    def close(self) -> None:
        """Stop what the backend started, for good: another call would start it again."""
        self._closed.set()
        self.backend.stop()

    def describe(
        self, image: ImageInputs, prompt: str | None, options: Options
    ) -> Flow[Description]:
        """Describe one picture, or several together."""
        return (yield from self._ask(one_turn(image, prompt), options))

    def chat(
        self, messages: Sequence[Message | Mapping[str, object]], options: Options
    ) -> Flow[Description]:
        """Answer the last of several turns."""
        return (yield from self._ask(checked_messages(messages), options))

    def describe_video(
        self,
        path: str | Path,
        prompt: str | None,
        frames: int,
        start: float,
        end: float | None,
        options: Options,
    ) -> Flow[Description]:
        """Describe evenly spaced frames of a video, one tile each unless ``detail`` says more."""
        from internvl_modal.images.video import read_frames

        pictures = yield Blocking(partial(read_frames, path, frames=frames, start=start, end=end))
        message = Message(
            role="user", text=prompt or structured_output.VIDEO_PROMPT, images=pictures
        )
        return (yield from self._ask((message,), {"detail": 1, **options}, label="Frame"))

    def extract(
        self,
        image: ImageInputs,
        schema: type[M],
        prompt: str | None,
        repairs: int,
        options: Options,
    ) -> Flow[M]:
        """Read a picture into ``schema``, asking again with the reason where it does not fit."""
        document = structured_output.schema_of(schema, repairs)
        asked = structured_output.first_prompt(prompt, document)
        call, deadline, _ = yield from self.asked(one_turn(image, asked), options)
        wanted = Wanted(document, structured_output.fitting(schema), repairs)
        typed = yield from self.typed(call, deadline, wanted)
        if typed.found is None:
            raise structured_output.invalid(schema.__name__, typed.why, typed.answer)
        return typed.found

    def typed(self, call: ChatCall, deadline: float, wanted: Wanted[T]) -> Flow[Typed[T]]:
        """Ask until the answer is what is ``wanted``, or no repair is left or would help."""
        spent = Usage()
        for repair in range(wanted.repairs + 1):
            answer = yield from self._held(call, deadline, wanted.document)
            spent = answer.usage.after(spent)
            answer = answer.model_copy(update={"usage": spent})
            try:
                # In a thread, where there is an event loop: a schema can ask for much.
                read = partial(structured_output.read_answer, answer.text, wanted.read)
                return Typed((yield Blocking(read)), answer)
            except ValueError as error:
                why = str(error)
            if answer.finish_reason == "length":  # and would be again
                return Typed(None, answer, cut_off(answer.usage, call))
            if repair < wanted.repairs:
                call = structured_output.repaired(call, answer.text, why)
        return Typed(None, answer, why)

    def _held(self, call: ChatCall, deadline: float, schema: Json) -> Flow[Description]:
        """Ask with the schema where the server may take it; again without it if it does not."""
        known, key = call.capabilities.json_schema, json.dumps(schema, sort_keys=True)
        sent: Exchanged[Description]
        if known is not False and not self._refused & {"", key}:
            try:
                sent = yield self._chat_step(call, deadline, schema)
                return sent.value
            except (RequestRejectedError, EngineError) as error:
                if error.status not in _REFUSALS and not _SCHEMA_WORDS.search(error.message):
                    raise
            sent = yield self._chat_step(call, deadline)
            # A server that is known to take schemas has refused this one; one of which nothing is
            # known does not take any. Both are remembered, so that it is asked in vain only once.
            self._refused.add(key if known else "")  # it was the schema, since this is answered
        else:
            sent = yield self._chat_step(call, deadline)
        return sent.value

    def open_stream(self, image: ImageInputs, prompt: str | None, options: Options) -> Flow[Opened]:
        """Make a streamed ``describe`` ready to be opened."""
        return (yield from self.opened(one_turn(image, prompt), options))

    def open_chat_stream(
        self, messages: Sequence[Message | Mapping[str, object]], options: Options
    ) -> Flow[Opened]:
        """Make a streamed ``chat`` ready to be opened."""
        return (yield from self.opened(checked_messages(messages), options))

    def opened(
        self,
        messages: Sequence[Message],
        options: Options,
        relayed: Mapping[str, object] | None = None,
    ) -> Flow[Opened]:
        """Make a streamed call ready to be opened; ``relayed``: see ``ChatCall``."""
        begun = time.monotonic()
        call, deadline, prepared = yield from self.asked(messages, options, relayed=relayed)
        request, collected = chat_request(call, stream=True), CompletionStream(call)
        step = exchange_of(call, request, collected.opened, deadline, stream=collected)
        return Opened(step, collected, begun, prepared)

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the backend answers, once that has been asked."""
        return self._ready.endpoint if self._ready else None

    @property
    def timeout(self) -> float:
        """Seconds for a call that names none: a setting's, else the endpoint's own."""
        endpoint = self._ready.endpoint if self._ready else preview(self.backend)
        return self._patience(endpoint)

    def _patience(self, endpoint: Endpoint) -> float:
        return self._timeout or endpoint.timeout or TIMEOUT

    def ready(self) -> Flow[Ready]:
        """Start the backend and learn what answers there, before the first picture."""
        return (yield from self._endpoint(None))[0]

    def models(self) -> Flow[list[str]]:
        """Names of the models the server offers."""
        endpoint = yield Blocking(self.start)
        sent = yield models_step(endpoint, time.monotonic() + self._patience(endpoint))
        return [str(item["id"]) for item in sent.value]

    def wait_until_ready(self, timeout: float | None) -> Flow[None]:
        """Return once the server lists its models; ``timeout`` in seconds."""
        endpoint = yield Blocking(self.start)
        deadline = time.monotonic() + (self._patience(endpoint) if timeout is None else timeout)
        patient = Retry(attempts=1_000_000, initial=0.5, maximum=5.0)
        yield models_step(endpoint, deadline, patient)

    def estimate(self, image: ImageSource, options: Options) -> Flow[Estimate]:
        """What a picture would cost; nothing is started and no pixel is decoded."""
        checked = DescribeOptions.parse(options)
        known = preview(self.backend)
        capabilities = self._capabilities or known.capabilities or Capabilities()
        # What the server has told beats what the backend foresaw.
        if self._ready is not None:
            capabilities = self._ready.capabilities
        from internvl_modal.images.encode import estimate

        look = partial(
            estimate,
            image,
            detail=checked.detail,
            tiling=dialect_of(capabilities).tiling(capabilities, checked.detail),
            max_pixels=checked.max_pixels,
            max_bytes_decoded=checked.max_bytes_decoded,
            allow_private_urls=checked.allow_private_urls,
            user_agent=checked.user_agent,
            fetch=fetched,
        )
        found: Estimate = yield Blocking(look)
        price = known.price
        return found.model_copy(update={"cost_usd": price and price.picture_cost(found.tiles)})

    def _ask(
        self, messages: Sequence[Message], options: Options, label: Any = "Image-"
    ) -> Flow[Description]:
        """One call from messages to description, timed from the first picture to the last byte."""
        begun = time.monotonic()
        call, deadline, prepared = yield from self.asked(messages, options, label)
        sent: Exchanged[Description] = yield self._chat_step(call, deadline)
        timings = Timings(
            prepare=prepared,
            total=time.monotonic() - begun,
            attempts=sent.attempts,
            resent=sent.resent,
        )
        return sent.value.model_copy(update={"timings": timings})

    def asked(
        self,
        messages: Sequence[Message],
        options: Options,
        label: Any = "Image-",
        relayed: Mapping[str, object] | None = None,
    ) -> Flow[Asked]:
        """Find the endpoint and prepare the pictures for it; ``relayed``: see ``ChatCall``."""
        checked = DescribeOptions.parse(options)
        ready, deadline = yield from self._endpoint(checked.timeout)
        if any(message.images for message in messages):
            ready = self._ready = yield from settle_tiles(ready, checked.detail, deadline)
        begun = time.monotonic()
        turns = yield Blocking(
            partial(prepared_turns, messages, checked, ready.capabilities, label, deadline)
        )
        endpoint, capabilities, model, family = ready
        if relayed is None:
            turns = with_system(turns, checked, family, model)
        call = ChatCall(endpoint, capabilities, model, turns, checked, family, relayed)
        return Asked(call, deadline, time.monotonic() - begun)

    def _endpoint(self, timeout: float | None) -> Flow[tuple[Ready, float]]:
        """The running endpoint and the call's deadline; model and dialect are asked for once.

        The clock starts once the backend has: a first start may download gigabytes.
        """
        endpoint: Endpoint = yield Blocking(self.start)
        # Monotonic: a clock that is set back must not prolong a call.
        deadline = time.monotonic() + (timeout or self._patience(endpoint))
        if self._ready is None or self._ready.endpoint != endpoint:
            model = endpoint.model or self._model
            known = self._capabilities or endpoint.capabilities
            self._ready = yield from discover(endpoint, model, known, deadline)
        return self._ready, deadline

    def _chat_step(
        self, call: ChatCall, deadline: float, schema: Json | None = None
    ) -> Exchange[Description]:
        decode, request = partial(decode_completion, call=call), chat_request(call, schema=schema)
        return exchange_of(call, request, decode, deadline)
