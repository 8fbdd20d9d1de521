"""``describe``, ``adescribe`` and ``describe_many``: one call, no client to keep.

What a backend starts (a local engine) is kept for the life of the process, so that the second
call is fast; connections of ``describe`` are kept too.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator

from typing_extensions import Unpack

from internvl_modal.batch.options import BatchOptions
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sources.inputs import Images
from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.sync import Client
from internvl_modal.flows.turns import IMAGES
from internvl_modal.protocol.endpoint import Backend, Endpoint
from internvl_modal.schema.options import Options
from internvl_modal.schema.results import Description
from internvl_modal.settings import Settings

_clients: dict[object, Client] = {}
_lock = threading.Lock()


class _Kept:
    """A backend that outlives its clients."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name = backend.name

    def start(self) -> Endpoint:
        return self._backend.start()

    def stop(self) -> None:
        pass


def describe(
    image: IMAGES,
    prompt: str | None = None,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    **options: Unpack[Options],
) -> Description:
    """Describe a picture, or several together when given a list.

    ``backend``: a name, an URL or a Backend; None means INTERNVL_MODAL_BASE_URL if set, else a
    small InternVL on this machine. ``model``: what to ask for there; "demo" needs no download.
    ``options``: ``detail``, ``max_tokens`` and more, see ``help(internvl_modal.Options)``.
    Raises InternVLError and its kinds.
    """
    return _client(backend, model).describe(image, prompt, **options)


async def adescribe(
    image: IMAGES,
    prompt: str | None = None,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    **options: Unpack[Options],
) -> Description:
    """``describe`` to await; for many pictures keep an ``AsyncClient`` instead."""
    kept = _Kept(_client(backend, model).backend)
    async with AsyncClient(kept, model=model) as client:
        return await client.describe(image, prompt, **options)


@atexit.register
def close() -> None:
    """Close what ``describe`` and ``adescribe`` keep; they start anew when called again."""
    with _lock:
        while _clients:
            _clients.popitem()[1].close()


def describe_many(
    images: Images,
    prompt: str | None = None,
    *,
    backend: str | Backend | None = None,
    model: str | None = None,
    **options: Unpack[BatchOptions],
) -> Iterator[Outcome]:
    """Describe any number of pictures, several at once, in notebooks too; see docs/batches.md.

    Nothing is sent before you iterate. ``options``: see ``help(internvl_modal.BatchOptions)``.
    """
    return _client(backend, model).describe_many(images, prompt, **options)


def _client(backend: str | Backend | None, model: str | None) -> Client:
    chosen = backend if isinstance(backend, str) else id(backend)
    key = (chosen, Settings.load(model=model))
    with _lock:
        if key not in _clients:
            _clients[key] = Client(backend, model=model)
        return _clients[key]
