"""``Client`` and ``AsyncClient``: the same calls, performed in two ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import httpx
from pydantic import BaseModel
from typing_extensions import Self, Unpack

from internvl_modal.backends import Backend, resolve
from internvl_modal.batch import BatchOptions, Images, Job, Outcome
from internvl_modal.errors import ConfigError
from internvl_modal.flows import IMAGES, Core, Flow, Work
from internvl_modal.schema import (
    Description,
    Estimate,
    ImageSource,
    Message,
    Options,
)
from internvl_modal.settings import Settings
from internvl_modal.streams import AsyncStream, Stream
from internvl_modal.transport import AsyncTransport, Retry, Transport

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
H = TypeVar("H")


class _Base:
    """What both clients share: settings, backend, flows."""

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> None:
        settings = Settings.load(base_url=base_url, api_key=api_key, model=model, timeout=timeout)
        resolved = resolve(backend, settings)
        patience: float | None = getattr(resolved, "timeout", None)
        if patience is None or "timeout" in settings.model_fields_set:
            patience = settings.timeout
        self._core = Core(resolved, model=settings.model, timeout=patience)

    @property
    def backend(self) -> Backend:
        """What makes the endpoint exist."""
        return self._core.backend

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core.backend!r})"


def _own(name: str, given: H | None, kind: type[H]) -> H | None:
    if given is not None and not isinstance(given, kind):
        package = kind.__module__.partition(".")[0]
        raise ConfigError(
            f"{name} is of type {type(given).__name__}", hint=f"pass an {package}.{kind.__name__}"
        )
    return given


class Client(_Base):
    """Describes pictures through one backend; thread-safe, close it or use ``with``.

    ``backend``: a name ("local", "lmdeploy", "modal"), an URL or a Backend; None means
    INTERNVL_MODAL_BASE_URL if set, else "local". ``timeout``: seconds for a whole call, retries
    included, once the backend has started. ``http_client``: your own ``httpx.Client``, which is
    not closed. Every method raises InternVLError and its kinds, see ``internvl_modal.errors``;
    ``options`` are those of ``help(internvl_modal.Options)``.
    """

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        super().__init__(backend, base_url=base_url, api_key=api_key, model=model, timeout=timeout)
        self._retry = _own("retry", retry, Retry) or Retry()
        self._transport = Transport(_own("http_client", http_client, httpx.Client), self._retry)
        self._http_client = http_client

    def describe(
        self, image: IMAGES, prompt: str | None = None, **options: Unpack[Options]
    ) -> Description:
        """Describe a picture, or several together when given a list."""
        return self._run(self._core.describe(image, prompt, options))

    def stream(
        self, image: IMAGES, prompt: str | None = None, **options: Unpack[Options]
    ) -> Stream:
        """Describe a picture piece by piece; iterate over it, then read ``.description``."""
        flow = self._core.open_stream(image, prompt, options)
        return Stream(self._run, self._transport, flow)

    def chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> Description:
        """Answer the last of several turns; pictures may be in any turn of the user."""
        return self._run(self._core.chat(messages, options))

    def stream_chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> Stream:
        """Answer the last of several turns piece by piece; see ``stream`` and ``chat``."""
        flow = self._core.open_chat_stream(messages, options)
        return Stream(self._run, self._transport, flow)

    def extract(
        self,
        image: IMAGES,
        schema: type[M],
        prompt: str | None = None,
        *,
        repairs: int = 2,
        **options: Unpack[Options],
    ) -> M:
        """Read a picture into a pydantic model.

        A wrong answer is sent back with the reason up to ``repairs`` times; then
        OutputInvalidError holds the raw text.
        """
        return self._run(self._core.extract(image, schema, prompt, repairs, options))

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
        """Describe ``frames`` evenly spaced frames between ``start`` and ``end`` (seconds)."""
        return self._run(self._core.describe_video(path, prompt, frames, start, end, options))

    def describe_many(
        self, images: Images, prompt: str | None = None, **options: Unpack[BatchOptions]
    ) -> Iterator[Outcome]:
        """Describe any number of pictures, several at once; see ``docs/batches.md``.

        Nothing is sent before you iterate. ``images``: a folder, a glob, a manifest, a tar, a
        mapping of keys to sources, or any iterable of sources or (key, source) pairs. Works inside
        a running event loop too: it has one of its own. ``options`` are those of
        ``help(internvl_modal.BatchOptions)``.
        """
        from internvl_modal.batch.bridge import iterate

        own = None if self._http_client is None else self._transport
        return iterate(self._core, own, self._retry, images, Job.parse(prompt, options))

    def models(self) -> list[str]:
        """Names of the models that the server offers."""
        return self._run(self._core.models())

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return once the server answers; ``timeout`` in seconds, the client's by default."""
        self._run(self._core.wait_until_ready(timeout))

    def estimate(self, image: ImageSource, **options: Unpack[Options]) -> Estimate:
        """Tiles, tokens and bytes of a picture; nothing is sent and no pixel decoded.

        Where only the server knows how it cuts pictures, InternVL's own rule is taken until the
        first call has asked it.
        """
        return self._run(self._core.estimate(image, options))

    def close(self) -> None:
        """Close the connections and stop what this client started."""
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
        try:
            step = next(flow)
            while True:
                try:
                    result: object = (
                        step.function() if isinstance(step, Work) else self._transport.send(step)
                    )
                except Exception as error:  # noqa: BLE001 - the flow decides
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            value: T = done.value
            return value


class AsyncClient(_Base):
    """``Client`` for asyncio: the same names, to await; close it with ``aclose`` or ``async with``.

    ``http_client``: your own ``httpx.AsyncClient``, which is not closed; by default connections
    are pooled by aiohttp, without a limit of their own. Pictures are prepared in threads.
    """

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(backend, base_url=base_url, api_key=api_key, model=model, timeout=timeout)
        self._retry = _own("retry", retry, Retry) or Retry()
        own = _own("http_client", http_client, httpx.AsyncClient)
        self._transport = AsyncTransport(own, self._retry)

    async def describe(
        self, image: IMAGES, prompt: str | None = None, **options: Unpack[Options]
    ) -> Description:
        """Describe a picture, or several together when given a list."""
        return await self._run(self._core.describe(image, prompt, options))

    def stream(
        self, image: IMAGES, prompt: str | None = None, **options: Unpack[Options]
    ) -> AsyncStream:
        """Describe a picture piece by piece; iterate over it, then read ``.description``."""
        flow = self._core.open_stream(image, prompt, options)
        return AsyncStream(self._run, self._transport, flow)

    async def chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> Description:
        """Answer the last of several turns; pictures may be in any turn of the user."""
        return await self._run(self._core.chat(messages, options))

    def stream_chat(
        self, messages: Sequence[Message | Mapping[str, object]], **options: Unpack[Options]
    ) -> AsyncStream:
        """Answer the last of several turns piece by piece; see ``stream`` and ``chat``."""
        flow = self._core.open_chat_stream(messages, options)
        return AsyncStream(self._run, self._transport, flow)

    async def extract(
        self,
        image: IMAGES,
        schema: type[M],
        prompt: str | None = None,
        *,
        repairs: int = 2,
        **options: Unpack[Options],
    ) -> M:
        """Read a picture into a pydantic model; see ``Client.extract``."""
        return await self._run(self._core.extract(image, schema, prompt, repairs, options))

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

    def describe_many(
        self, images: Images, prompt: str | None = None, **options: Unpack[BatchOptions]
    ) -> AsyncIterator[Outcome]:
        """Describe any number of pictures, for ``async for``; see ``Client.describe_many``.

        ``images`` may be an async iterable.
        """
        from internvl_modal.batch.bridge import stream

        send = self._transport.send
        return stream(self._core, send, self._retry, images, Job.parse(prompt, options))

    async def models(self) -> list[str]:
        """Names of the models that the server offers."""
        return await self._run(self._core.models())

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return once the server answers; ``timeout`` in seconds, the client's by default."""
        await self._run(self._core.wait_until_ready(timeout))

    async def estimate(self, image: ImageSource, **options: Unpack[Options]) -> Estimate:
        """Tiles, tokens and bytes of a picture; see ``Client.estimate``."""
        return await self._run(self._core.estimate(image, options))

    async def aclose(self) -> None:
        """Close the connections and stop what this client started."""
        await self._transport.close()
        await asyncio.to_thread(self._core.close)

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
        try:
            step = next(flow)
            while True:
                try:
                    result: object = (
                        await asyncio.to_thread(step.function)
                        if isinstance(step, Work)
                        else await self._transport.send(step)
                    )
                except Exception as error:  # noqa: BLE001 - the flow decides
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            value: T = done.value
            return value
