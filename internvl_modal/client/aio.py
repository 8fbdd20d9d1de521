"""``AsyncClient``: every call awaited in the caller's event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import anyio.to_thread
from typing_extensions import Self, Unpack

from internvl_modal._utils.lazy_module import LazyModule
from internvl_modal._utils.short_errors import short_errors
from internvl_modal.batch.iterate import AsyncBatch
from internvl_modal.batch.options import BatchOptions, Job, with_batch_options
from internvl_modal.batch.prompts import Prompt
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.captions.boxes import Located
from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.presets.registry import preset_of
from internvl_modal.client.base import ClientBase, M, T, of_type
from internvl_modal.client.streams import AsyncStream
from internvl_modal.flows import locating
from internvl_modal.flows.steps import Flow, adrive
from internvl_modal.protocol.endpoint import Backend, Capabilities
from internvl_modal.schema.inputs import ImageInputs, ImageSource, Message
from internvl_modal.schema.options import Options, with_options
from internvl_modal.schema.results import Description, Estimate
from internvl_modal.transport.aio import AsyncTransport
from internvl_modal.transport.retry import Retry

if TYPE_CHECKING:
    import httpx
else:  # imported only for those who bring a client of their own
    httpx = LazyModule("httpx")


@short_errors
class AsyncClient(ClientBase):
    """``Client`` for asyncio: the same names, to await; close it with ``aclose`` or ``async with``.

    ``http_client``: your own ``httpx.AsyncClient``, which is not closed; by default connections
    are pooled by aiohttp, without a limit of their own. Pictures are prepared in threads.

    Of one event loop; any number of tasks may use it at once. Making one blocks for nothing: the
    backend is started by the first call, in a thread.

    >>> async with AsyncClient("modal", model="internvl2_5-8b") as client:  # doctest: +SKIP
    ...     print(await client.describe("photo.jpg"))
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
        http_client: httpx.AsyncClient | None = None,
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
        # A blocking client would hold the event loop up, and the mistake would show as slowness
        # only.
        if http_client is not None:
            of_type("http_client", http_client, httpx.AsyncClient)
        self._transport = AsyncTransport(http_client, self._retry)

    @with_options
    async def describe(
        self,
        image: ImageInputs,
        prompt: str | None = None,
        *,
        preset: str | Preset | None = None,
        **options: Unpack[Options],
    ) -> Description:
        """Describe a picture, or several together when given a list.

        ``preset``: see ``Client.describe``.
        """
        return await self._run(self._core.describe(image, prompt, options, preset_of(preset)))

    @with_options
    def stream(
        self, image: ImageInputs, prompt: str | None = None, **options: Unpack[Options]
    ) -> AsyncStream:
        """Describe a picture piece by piece; iterate over it, then read ``.description``.

        Not awaited: nothing is sent before the first step of ``async for``.
        """
        flow = self._core.open_stream(image, prompt, options)
        return AsyncStream(self._run, self._transport, flow)

    @with_options
    async def chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> Description:
        """Answer the last of several turns; pictures may be in any turn of the user."""
        return await self._run(self._core.chat(messages, options))

    @with_options
    def stream_chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> AsyncStream:
        """Answer the last of several turns piece by piece; see ``stream`` and ``chat``."""
        flow = self._core.open_chat_stream(messages, options)
        return AsyncStream(self._run, self._transport, flow)

    @with_options
    async def extract(
        self,
        image: ImageInputs,
        schema: type[M],
        prompt: str | None = None,
        *,
        repairs: int = 2,
        **options: Unpack[Options],
    ) -> M:
        """Read a picture into a pydantic model; see ``Client.extract``."""
        return await self._run(self._core.extract(image, schema, prompt, repairs, options))

    @with_options
    async def locate(self, image: ImageSource, what: str, **options: Unpack[Options]) -> Located:
        """Where ``what`` is in a picture; see ``Client.locate``."""
        return await self._run(locating.locate(self._core, image, what, options))

    @with_options
    async def describe_video(
        self,
        path: str | Path,
        prompt: str | None = None,
        *,
        frames: int = 8,
        start: float = 0.0,
        end: float | None = None,
        **options: Unpack[Options],
    ) -> Description:
        """Describe ``frames`` evenly spaced frames between ``start`` and ``end`` (seconds)."""
        return await self._run(self._core.describe_video(path, prompt, frames, start, end, options))

    @with_batch_options
    def describe_many(
        self, images: Images, prompt: Prompt | None = None, **options: Unpack[BatchOptions]
    ) -> AsyncBatch:
        """Describe any number of pictures, for ``async for``; see ``Client.describe_many``.

        ``images`` may be an async iterable.
        """
        job = Job.parse(prompt, options)
        return AsyncBatch(self._core, self._transport.send, self._retry, images, job)

    async def models(self) -> list[str]:
        """Names of the models that the server offers."""
        return await self._run(self._core.models())

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return once the server answers; ``timeout`` in seconds, the client's by default."""
        await self._run(self._core.wait_until_ready(timeout))

    @with_options
    async def estimate(self, image: ImageSource, **options: Unpack[Options]) -> Estimate:
        """Tiles, tokens and bytes of a picture; see ``Client.estimate``."""
        return await self._run(self._core.estimate(image, options))

    async def aclose(self) -> None:
        """Close the connections and stop what this client started; calls under way end at once."""
        await self._transport.close()
        # In a thread: an engine takes seconds to end.
        await anyio.to_thread.run_sync(self._core.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        """Perform each step of ``flow``, blocking ones in a thread."""
        return await adrive(flow, self._transport.send)
