"""``describe``, ``describe_many`` and their twins to await: one call, no client to keep.

What a backend starts (a local engine) is kept for the life of the process, so that the second
call is fast; connections of ``describe`` are kept too. A Backend of the caller's own is kept no
longer than its caller keeps it.

For scripts and notebooks. A program that describes many pictures, or must know when things end,
keeps a ``Client``.
"""

from __future__ import annotations

import asyncio
import atexit
import weakref

from typing_extensions import Unpack

from internvl_modal._utils.short_errors import short_errors
from internvl_modal.batch.iterate import AsyncBatch, Batch
from internvl_modal.batch.options import BatchOptions, with_batch_options
from internvl_modal.batch.prompts import Prompt
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.captions.boxes import Located
from internvl_modal.captions.presets.base import Preset
from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.sync import Client
from internvl_modal.errors import ConfigError
from internvl_modal.protocol.endpoint import Backend, Endpoint, preview
from internvl_modal.schema.inputs import ImageInputs, ImageSource
from internvl_modal.schema.options import Options, with_options
from internvl_modal.schema.results import Description
from internvl_modal.settings import Settings

_clients: dict[tuple[object, Settings], Client] = {}
"""By name or, for a Backend, by its id, which is its own while the client is here."""


class _Kept:
    """A backend that outlives its clients.

    ``stop`` does nothing: the engine is for the next call, and ends with the process.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name = backend.name

    def start(self) -> Endpoint:
        return self._backend.start()

    def stop(self) -> None:
        pass

    def preview(self) -> Endpoint:
        return preview(self._backend)


class _Lent:
    """The caller's own backend, which its client must not keep alive.

    Weakly, as the client lies in a dictionary of this module for ever otherwise.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = weakref.ref(backend)
        self.name = backend.name

    def _there(self) -> Backend:
        backend = self._backend()
        # The caller has let go of it; a strong reference would have kept its engine for ever.
        if backend is None:
            raise ConfigError(f"the backend {self.name!r} is gone", hint="keep it while it is used")
        return backend

    def start(self) -> Endpoint:
        return self._there().start()

    def stop(self) -> None:
        backend = self._backend()
        if backend is not None:
            backend.stop()

    def preview(self) -> Endpoint:
        return preview(self._there())


@short_errors
@with_options
def describe(
    image: ImageInputs,
    prompt: str | None = None,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    preset: str | Preset | None = None,
    **options: Unpack[Options],
) -> Description:
    """Describe a picture, or several together when given a list.

    ``backend``: a name, a URL or a Backend; None means INTERNVL_MODAL_BASE_URL if set, else a
    small InternVL on this machine. ``model``: what to ask for there; "demo" needs no download.
    ``preset``: what the text is for, such as "alt-text"; see ``Client.describe``.
    ``options``: ``detail``, ``max_tokens`` and more, see ``help(internvl_modal.Options)``.
    Raises InternVLError and its kinds.

    >>> describe("photo.jpg", "What is the dog doing?", detail="high")  # doctest: +SKIP
    """
    return _client(backend, model).describe(image, prompt, preset=preset, **options)


@short_errors
@with_options
async def adescribe(
    image: ImageInputs,
    prompt: str | None = None,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    preset: str | Preset | None = None,
    **options: Unpack[Options],
) -> Description:
    """``describe`` to await; for many pictures keep an ``AsyncClient`` instead.

    Without kept connections, as they belong to one event loop and this call may be in any.
    """
    kept = await asyncio.to_thread(_kept, backend, model)
    async with AsyncClient(kept, model=model) as client:
        return await client.describe(image, prompt, preset=preset, **options)


@short_errors
@with_options
def locate(
    image: ImageSource,
    what: str,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    **options: Unpack[Options],
) -> Located:
    """Where ``what`` is in a picture: boxes in its own pixels, and ``draw()``.

    ``backend``, ``model`` and ``options`` as in ``describe``; it takes an InternVL that was trained
    to locate.

    >>> locate("table.jpg", "the red cup").draw().save("found.png")  # doctest: +SKIP
    """
    return _client(backend, model).locate(image, what, **options)


@short_errors
@with_options
async def alocate(
    image: ImageSource,
    what: str,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    **options: Unpack[Options],
) -> Located:
    """``locate`` to await."""
    kept = await asyncio.to_thread(_kept, backend, model)
    async with AsyncClient(kept, model=model) as client:
        return await client.locate(image, what, **options)


@short_errors
@with_batch_options
def describe_many(
    images: Images,
    prompt: Prompt | None = None,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    **options: Unpack[BatchOptions],
) -> Batch:
    """Describe any number of pictures, several at once, in notebooks too; see docs/batches.md.

    Nothing is sent before you iterate. ``options``: see ``help(internvl_modal.BatchOptions)``.
    """
    return Client(_kept(backend, model), model=model).describe_many(images, prompt, **options)


@short_errors
@with_batch_options
def adescribe_many(
    images: Images,
    prompt: Prompt | None = None,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    **options: Unpack[BatchOptions],
) -> AsyncBatch:
    """``describe_many`` for ``async for``; ``images`` may be an async iterable."""
    client = AsyncClient(_kept(backend, model), model=model)
    return client.describe_many(images, prompt, **options).closing(client.aclose)


@atexit.register
def close() -> None:
    """Close what these calls keep; they start anew when called again."""
    while _clients:
        try:
            client = _clients.popitem()[1]
        except KeyError:  # another thread was faster
            return
        client.close()


def _kept(backend: str | Backend | None, model: str | None) -> _Kept:
    """The backend meant, for a client that does not stop it."""
    if isinstance(backend, str) or not isinstance(backend, Backend):
        backend = _client(backend, model).backend
    return _Kept(backend)


def _client(backend: str | Backend | None, model: str | None) -> Client:
    """The client kept for this backend and these settings.

    Without a lock, which a fork could leave locked and others would wait for while a backend is
    made: two threads may make one, and the first that is kept is the one.
    """
    # Part of the key: who changes a variable between two calls means another client.
    settings = Settings.load(model=model)
    if isinstance(backend, str) or not isinstance(backend, Backend):
        key: tuple[object, Settings] = (backend, settings)
        return _clients.get(key) or _clients.setdefault(key, Client(backend, model=model))
    key = (id(backend), settings)
    if key not in _clients:
        try:
            lent = _Lent(backend)
        except TypeError:  # no weak reference to it can be had
            return Client(_Kept(backend), model=model)
        weakref.finalize(backend, _forget, id(backend)).atexit = False
        return _clients.setdefault(key, Client(lent, model=model))
    return _clients[key]


def _forget(backend: int) -> None:
    """Drop the clients of a backend that is no more; freed, they close their connections."""
    for key in [key for key in list(_clients) if key[0] == backend]:
        _clients.pop(key, None)
