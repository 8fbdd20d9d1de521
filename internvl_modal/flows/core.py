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
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from internvl_modal.errors import ConfigError, RequestRejectedError, ServerError
from internvl_modal.flows.steps import Blocking, Flow
from internvl_modal.flows.turns import IMAGES, checked_messages, one_turn, prepared_turns
from internvl_modal.images.encode import estimate
from internvl_modal.images.fetch import fetch
from internvl_modal.protocol import structured_output
from internvl_modal.protocol.answer_warnings import cut_off
from internvl_modal.protocol.chat_request import ChatCall
from internvl_modal.protocol.completion import decode_completion, decode_models
from internvl_modal.protocol.completion_stream import CompletionStream
from internvl_modal.protocol.dialects.registry import _capabilities, _tiling
from internvl_modal.protocol.endpoint import Backend, Capabilities, Endpoint, preview
from internvl_modal.protocol.error_responses import error_from_response
from internvl_modal.protocol.http import HttpRequest, HttpResponse, Json
from internvl_modal.schema.inputs import ImageSource, Message
from internvl_modal.schema.options import DescribeOptions, Options
from internvl_modal.schema.results import Description, Estimate, Timings
from internvl_modal.schema.validation import explain
from internvl_modal.transport.exchange import Exchange, Exchanged
from internvl_modal.transport.retry import Retry

M = TypeVar("M", bound=BaseModel)


class Ready(NamedTuple):
    """An endpoint that has said what it is."""

    endpoint: Endpoint
    capabilities: Capabilities
    model: str


class Asked(NamedTuple):
    """A call ready to be sent, when to give up, and the seconds its pictures took."""

    call: ChatCall
    deadline: float
    prepared: float


class Opened(NamedTuple):
    """A streamed call: the step that opens it and what collects its chunks."""

    step: Exchange[str | None]
    collected: CompletionStream
    begun: float
    prepared: float


class Core:
    """The flows of one client; holds its backend and what is known of its endpoint."""

    def __init__(self, backend: Backend, *, model: str | None, timeout: float) -> None:
        self.backend = backend
        self._model = model
        self._timeout = timeout
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

    def describe(self, image: IMAGES, prompt: str | None, options: Options) -> Flow[Description]:
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
        image: IMAGES,
        schema: type[M],
        prompt: str | None,
        repairs: int,
        options: Options,
    ) -> Flow[M]:
        """Read a picture into ``schema``, asking again with the reason where it does not fit."""
        document = structured_output.schema_of(schema, repairs)
        asked = structured_output.first_prompt(prompt, document)
        call, deadline, _ = yield from self._call(one_turn(image, asked), options, "Image-")
        for repair in range(repairs + 1):
            sent = yield self._chat_step(call, deadline, document)
            text = sent.value.text
            try:
                return schema.model_validate(structured_output.read_object(text))
            except (ValidationError, ValueError) as error:
                why = explain(error) if isinstance(error, ValidationError) else str(error)
                cut = sent.value.finish_reason == "length"  # and would be again
                if cut:
                    why = cut_off(sent.value.usage, call)
                if cut or repair == repairs:
                    raise structured_output.invalid(text, schema, why, sent.value) from error
                call = structured_output.repaired(call, text, why)
        raise AssertionError("unreachable")

    def open_stream(self, image: IMAGES, prompt: str | None, options: Options) -> Flow[Opened]:
        """Make a streamed ``describe`` ready to be opened."""
        return (yield from self._open(one_turn(image, prompt), options))

    def open_chat_stream(
        self, messages: Sequence[Message | Mapping[str, object]], options: Options
    ) -> Flow[Opened]:
        """Make a streamed ``chat`` ready to be opened."""
        return (yield from self._open(checked_messages(messages), options))

    def _open(self, messages: Sequence[Message], options: Options) -> Flow[Opened]:
        begun = time.monotonic()
        call, deadline, prepared = yield from self._call(messages, options, "Image-")
        request = call.request(stream=True)
        step = Exchange(call.endpoint.base_url, request, _stream_opened, deadline)
        return Opened(step, CompletionStream(call), begun, prepared)

    @property
    def timeout(self) -> float:
        """Seconds for a call that names none."""
        return self._timeout

    def ready(self) -> Flow[Ready]:
        """Start the backend and learn what answers there, before the first picture."""
        return (yield from self._endpoint(self._timeout))[0]

    def models(self) -> Flow[list[str]]:
        """Names of the models the server offers."""
        endpoint = yield Blocking(self.start)
        sent = yield self._models_step(endpoint, time.monotonic() + self._timeout)
        return [str(item["id"]) for item in sent.value]

    def wait_until_ready(self, timeout: float | None) -> Flow[None]:
        """Return once the server lists its models; ``timeout`` in seconds."""
        endpoint = yield Blocking(self.start)
        deadline = time.monotonic() + (timeout or self._timeout)
        patient = Retry(attempts=1_000_000, initial=0.5, maximum=5.0)
        yield self._models_step(endpoint, deadline, patient)

    def estimate(self, image: ImageSource, options: Options) -> Flow[Estimate]:
        """What a picture would cost; nothing is started and no pixel is decoded."""
        checked = DescribeOptions.parse(options)
        known = preview(self.backend)
        tiling = _tiling(
            self._ready.capabilities if self._ready else known.capabilities or Capabilities()
        )
        look = partial(
            estimate,
            image,
            detail=checked.detail,
            tiling=tiling,
            max_pixels=checked.max_pixels,
            max_bytes_decoded=checked.max_bytes_decoded,
            allow_private_urls=checked.allow_private_urls,
            user_agent=checked.user_agent,
            fetch=fetch,
        )
        found: Estimate = yield Blocking(look)
        price = known.price
        return found.model_copy(update={"cost_usd": price and price.picture_cost(found.tiles)})

    def _ask(
        self, messages: Sequence[Message], options: Options, label: Any = "Image-"
    ) -> Flow[Description]:
        begun = time.monotonic()
        call, deadline, prepared = yield from self._call(messages, options, label)
        sent: Exchanged[Description] = yield self._chat_step(call, deadline)
        timings = Timings(prepare=prepared, total=time.monotonic() - begun, attempts=sent.attempts)
        return sent.value.model_copy(update={"timings": timings})

    def _call(self, messages: Sequence[Message], options: Options, label: Any) -> Flow[Asked]:
        """Find the endpoint and prepare the pictures for it."""
        checked = DescribeOptions.parse(options)
        ready, deadline = yield from self._endpoint(checked.timeout or self._timeout)
        begun = time.monotonic()
        turns = yield Blocking(
            partial(prepared_turns, messages, checked, ready.capabilities, label, deadline)
        )
        call = ChatCall(ready.endpoint, ready.capabilities, ready.model, turns, checked)
        return Asked(call, deadline, time.monotonic() - begun)

    def _endpoint(self, timeout: float) -> Flow[tuple[Ready, float]]:
        """The running endpoint and the call's deadline; model and dialect are asked for once.

        The clock starts once the backend has: a first start may download gigabytes.
        """
        endpoint: Endpoint = yield Blocking(self.start)
        deadline = time.monotonic() + timeout
        if self._ready is not None and self._ready.endpoint == endpoint:
            return self._ready, deadline
        model = endpoint.model or self._model
        capabilities, listed = endpoint.capabilities, []
        if model is None or capabilities is None:
            try:
                sent = yield self._models_step(endpoint, deadline)
                listed = sent.value
            except RequestRejectedError:
                if model is None:
                    raise
        if model is None:
            model = _first_model(listed, endpoint)
        self._ready = Ready(endpoint, capabilities or _capabilities(model, listed), model)
        return self._ready, deadline

    def _chat_step(
        self, call: ChatCall, deadline: float, schema: Json | None = None
    ) -> Exchange[Description]:
        decode = partial(decode_completion, call=call)
        return Exchange(call.endpoint.base_url, call.request(schema=schema), decode, deadline)

    def _models_step(
        self, endpoint: Endpoint, deadline: float, retry: Retry | None = None
    ) -> Exchange[list[Json]]:
        request = HttpRequest("GET", "models", endpoint.headers)
        return Exchange(endpoint.base_url, request, decode_models, deadline, retry)


def _first_model(listed: Sequence[Json], endpoint: Endpoint) -> str:
    if not listed:
        raise ServerError(
            f"{endpoint.base_url} lists no model", hint="pass model= or set INTERNVL_MODAL_MODEL"
        )
    return str(listed[0]["id"])


def _stream_opened(response: HttpResponse) -> str | None:
    """The request id of a stream that began; raises what any other status means."""
    if response.status != 200:
        raise error_from_response(response)
    return response.request_id
