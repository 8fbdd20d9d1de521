"""What a client does, as steps: the same for ``Client`` and ``AsyncClient``.

A flow is a generator that yields steps and is sent their results: ``Blocking`` (a blocking
function) and ``Send`` (one HTTP exchange). The clients differ only in how they perform a step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import BaseModel

from internvl_modal.captions.gate import Gate
from internvl_modal.captions.presets.base import Preset
from internvl_modal.errors import ConfigError
from internvl_modal.flows.checked import checked
from internvl_modal.flows.discovery import (
    Ready,
    discover,
    models_step,
    settle_tiles,
    tiles_question,
)
from internvl_modal.flows.fleet import Fleet
from internvl_modal.flows.pictures import Begun, prepare
from internvl_modal.flows.steps import Blocking, Flow, described, exchange_of
from internvl_modal.flows.turns import (
    checked_messages,
    estimated,
    one_turn,
    with_system,
)
from internvl_modal.flows.typed import Typed, TypedAnswers, Wanted
from internvl_modal.protocol import structured_output
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.chat_request import chat_request
from internvl_modal.protocol.completion_stream import CompletionStream
from internvl_modal.protocol.endpoint import Backend, Capabilities, Endpoint, preview
from internvl_modal.schema.inputs import ImageInputs, ImageSource, Message
from internvl_modal.schema.options import DescribeOptions, Options
from internvl_modal.schema.results import Description, Estimate
from internvl_modal.transport.exchange import Exchange
from internvl_modal.transport.retry import Retry

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

TIMEOUT = 600.0
"""Seconds for a call where nobody says how many; a cold start on Modal takes minutes."""


class Asked(NamedTuple):
    """A call ready to be sent, when to give up, and the seconds its pictures took."""

    call: ChatCall
    deadline: float
    prepared: float


class Opened(NamedTuple):
    """A streamed call: the step that opens it and what collects its chunks."""

    call: ChatCall
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
        self._typed = TypedAnswers()
        self._fleet = Fleet()
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
        self,
        image: ImageInputs,
        prompt: str | None,
        options: Options,
        preset: Preset | None = None,
    ) -> Flow[Description]:
        """Describe one picture, or several together; with a preset until its rules are kept."""
        if preset is None:
            return (yield from self._ask(one_turn(image, prompt), options))
        begun, chosen = time.monotonic(), cast(Options, {**preset.options, **options})
        turn = one_turn(image, prompt or preset.prompt)
        call, deadline, prepared = yield from self.asked(turn, chosen)
        ask = partial(described, deadline=deadline, begun=begun, prepared=prepared)
        return (yield from checked(call, Gate(preset=preset), ask)).answer

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
        return (yield from self._typed.ask(call, deadline, wanted))

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
        return Opened(call, step, collected, begun, prepared)

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
        endpoint: Endpoint = yield Blocking(self.start)
        return (yield from self._known(endpoint, time.monotonic() + self._patience(endpoint)))

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
        found: Estimate = yield Blocking(partial(estimated, image, checked, capabilities))
        price = known.price
        return found.model_copy(update={"cost_usd": price and price.picture_cost(found.tiles)})

    def _ask(
        self, messages: Sequence[Message], options: Options | DescribeOptions, label: Any = "Image-"
    ) -> Flow[Description]:
        """One call from messages to description, timed from the first picture to the last byte."""
        begun = time.monotonic()
        call, deadline, prepared = yield from self.asked(messages, options, label)
        return (yield from described(call, deadline, begun, prepared))

    def asked(
        self,
        messages: Sequence[Message],
        options: Options | DescribeOptions,
        label: Any = "Image-",
        relayed: Mapping[str, object] | None = None,
    ) -> Flow[Asked]:
        """Find the endpoint and prepare the pictures for it; ``relayed``: see ``ChatCall``."""
        checked = DescribeOptions.parse(options)
        begun: Begun = yield Blocking(partial(self._begin, messages, checked, label))
        if begun.ready is None:
            ready = yield from self._known(begun.endpoint, begun.deadline)
            if any(message.images for message in messages):
                ready = self._ready = yield from settle_tiles(ready, checked.detail, begun.deadline)
            begun = yield Blocking(partial(prepare, begun, ready, messages, checked, label))
            assert begun.ready is not None  # nosec B101  # for the type checker
        endpoint, capabilities, model, family = begun.ready
        turns = begun.turns
        if relayed is None:
            turns = with_system(turns, checked, family, model)
        call = ChatCall(endpoint, capabilities, model, turns, checked, family, relayed)
        return Asked(call, begun.deadline, begun.prepared)

    def _begin(self, messages: Sequence[Message], options: DescribeOptions, label: Any) -> Begun:
        """Start the backend and, where nothing is to be asked first, prepare the pictures.

        Both in one step, as each costs a change of threads.
        """
        endpoint = self.start()
        # From here on, as a first start may download gigabytes, and monotonic, so that a clock that
        # is set back does not prolong a call.
        deadline = time.monotonic() + (options.timeout or self._patience(endpoint))
        begun, ready = Begun(endpoint, deadline), self._ready
        settled = self._fleet.settled(endpoint)
        if ready is None or ready.endpoint != settled or tiles_question(ready, options.detail):
            return begun
        return prepare(begun, ready, messages, options, label)

    def _known(self, endpoint: Endpoint, deadline: float) -> Flow[Ready]:
        """What is known of the running endpoint; model and dialect are asked for once."""
        model = endpoint.model or self._model
        if endpoint.others:
            endpoint = yield from self._fleet.of(endpoint, model, deadline)
            if self._ready is not None and self._ready.endpoint.base_url == endpoint.base_url:
                self._ready = self._ready._replace(endpoint=endpoint)  # one server more
        if self._ready is None or self._ready.endpoint != endpoint:
            known = self._capabilities or endpoint.capabilities
            self._ready = yield from discover(endpoint, model, known, deadline)
        return self._ready
