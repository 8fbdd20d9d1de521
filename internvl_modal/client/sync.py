"""``Client`` and ``AsyncClient``: the same calls, performed in two ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self, Unpack

from internvl_modal._utils.lazy_module import LazyModule
from internvl_modal._utils.short_errors import short_errors
from internvl_modal.batch.iterate import Batch
from internvl_modal.batch.options import BatchOptions, Job, with_batch_options
from internvl_modal.batch.prompts import Prompt
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.captions.boxes import Located
from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.presets.registry import preset_of
from internvl_modal.client.base import ClientBase, M, T, of_type
from internvl_modal.client.streams import Stream
from internvl_modal.flows import locating
from internvl_modal.flows.steps import Flow, drive
from internvl_modal.protocol.endpoint import Backend, Capabilities
from internvl_modal.schema.inputs import ImageInputs, ImageSource, Message
from internvl_modal.schema.options import Options, with_options
from internvl_modal.schema.results import Description, Estimate
from internvl_modal.transport.retry import Retry
from internvl_modal.transport.sync import Transport

if TYPE_CHECKING:
    import httpx
else:  # imported only for those who bring a client of their own
    httpx = LazyModule("httpx")


@short_errors
class Client(ClientBase):
    """Describes pictures through one backend; thread-safe, close it or use ``with``.

    ``backend``: a name ("local", "lmdeploy", "modal"), a URL or a Backend; None means
    INTERNVL_MODAL_BASE_URL if set, else "local". ``base_url``: of a server, or a list of those of
    several servers of the same model, of which the least busy one is asked. ``timeout``: seconds
    for a whole call, retries included, once the backend has started. ``capabilities``: what the
    server can do and how its model sees pictures, where that cannot be found out. ``http_client``:
    your own ``httpx.Client``, which is not closed. Every method raises InternVLError and its kinds,
    see ``internvl_modal.errors``; ``options`` are those of ``help(internvl_modal.Options)``.

    >>> with Client(base_url="http://localhost:8000") as client:  # doctest: +SKIP
    ...     answer = client.describe(["before.jpg", "after.jpg"], "What has changed?")
    ...     print(answer, answer.usage.total_tokens)
    """

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        base_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        capabilities: Capabilities | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        super().__init__(
            backend,
            base_url=base_url,
            api_key=api_key,
            model=model,
            timeout=timeout,
            retry=retry,
            capabilities=capabilities,
        )
        if http_client is not None:
            of_type("http_client", http_client, httpx.Client)
        self._http_client = http_client
        self._transport = Transport(http_client, self._retry)

    @with_options
    def describe(
        self,
        image: ImageInputs,
        prompt: str | None = None,
        *,
        preset: str | Preset | None = None,
        **options: Unpack[Options],
    ) -> Description:
        """Describe a picture, or several together when given a list.

        ``preset``: what the text is for, such as "alt-text". It is asked for again until it keeps
        the preset's rules; where it never does, AnswerFlaggedError has the text.
        """
        return self._run(self._core.describe(image, prompt, options, preset_of(preset)))

    @with_options
    def stream(
        self, image: ImageInputs, prompt: str | None = None, **options: Unpack[Options]
    ) -> Stream:
        """Describe a picture piece by piece; iterate over it, then read ``.description``."""
        flow = self._core.open_stream(image, prompt, options)
        return Stream(self._run, self._transport, flow)

    @with_options
    def chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> Description:
        """Answer the last of several turns; pictures may be in any turn of the user.

        The pictures are sent again with every call: servers keep no conversation.
        """
        return self._run(self._core.chat(messages, options))

    @with_options
    def stream_chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> Stream:
        """Answer the last of several turns piece by piece; see ``stream`` and ``chat``."""
        flow = self._core.open_chat_stream(messages, options)
        return Stream(self._run, self._transport, flow)

    @with_options
    def extract(
        self,
        image: ImageInputs,
        schema: type[M],
        prompt: str | None = None,
        *,
        repairs: int = 2,
        **options: Unpack[Options],
    ) -> M:
        """Read a picture into a pydantic model.

        A wrong answer is sent back with the reason up to ``repairs`` times; then
        OutputInvalidError holds the raw text.

        >>> class Sign(BaseModel):  # doctest: +SKIP
        ...     words: str
        >>> client.extract("sign.jpg", Sign).words  # doctest: +SKIP
        """
        return self._run(self._core.extract(image, schema, prompt, repairs, options))

    @with_options
    def locate(self, image: ImageSource, what: str, **options: Unpack[Options]) -> Located:
        """Where ``what`` is in a picture: boxes in its own pixels, and ``draw()``.

        Raises OutputInvalidError where the model's numbers are no boxes of 0 to 1000.

        >>> client.locate("table.jpg", "the red cup").boxes  # doctest: +SKIP
        """
        return self._run(locating.locate(self._core, image, what, options))

    @with_options
    def describe_video(
        self,
        path: str | Path,
        prompt: str | None = None,
        *,
        frames: int = 8,
        start: float = 0.0,
        end: float | None = None,
        **options: Unpack[Options],
    ) -> Description:
        """Describe ``frames`` evenly spaced frames between ``start`` and ``end`` (seconds).

        Frames are decoded here, one tile each by default: eight of them are 2,048 tokens. Needs the
        extra ``video``.
        """
        return self._run(self._core.describe_video(path, prompt, frames, start, end, options))

    @with_batch_options
    def describe_many(
        self, images: Images, prompt: Prompt | None = None, **options: Unpack[BatchOptions]
    ) -> Batch:
        """Describe any number of pictures, several at once; see ``docs/batches.md``.

        Nothing is sent before you iterate over the ``Batch`` that this returns. ``images``: a
        folder, a glob, a manifest, a tar, a mapping of keys to sources, or any iterable of sources
        or (key, source) pairs. Works inside a running event loop too: it has one of its own.
        ``options`` are those of ``help(internvl_modal.BatchOptions)``.
        """
        job = Job.parse(prompt, options)
        return Batch(self._core, self._http_client, self._retry, images, job)

    def models(self) -> list[str]:
        """Names of the models that the server offers.

        Asks the server each time. Raises ServerError.
        """
        return self._run(self._core.models())

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return once the server answers; ``timeout`` in seconds, the client's by default.

        Raises DeadlineExceededError where it does not in that time.
        """
        self._run(self._core.wait_until_ready(timeout))

    @with_options
    def estimate(self, image: ImageSource, **options: Unpack[Options]) -> Estimate:
        """Tiles, tokens and bytes of a picture; nothing is sent and no pixel decoded.

        Where only the server knows how it cuts pictures, InternVL's own rule is taken until the
        first call has asked it.
        """
        return self._run(self._core.estimate(image, options))

    def close(self) -> None:
        """Close the connections and stop what this client started; calls under way end at once.

        Safe to call twice, and from any thread. A backend that was given is stopped too, as far as
        it started something.
        """
        self._transport.close()
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        """Perform each step of ``flow`` in this thread."""
        return drive(flow, self._transport.send)
