"""The gateway as an ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from internvl_modal.client.aio import AsyncClient
from internvl_modal.credentials import checked_key
from internvl_modal.errors import ConfigError, MissingExtraError

try:
    from fastapi import FastAPI
    from prometheus_client import CollectorRegistry
except ImportError as missing:
    raise MissingExtraError(missing.name or "fastapi", "gateway") from missing
from internvl_modal.gateway.admission import (
    BODY_SECONDS,
    MAX_BODY,
    MAX_REQUESTS,
    Admission,
    Limits,
)
from internvl_modal.gateway.asking import Model
from internvl_modal.gateway.auth import KEYED
from internvl_modal.gateway.describe_route import describe_router
from internvl_modal.gateway.errors import add_errors
from internvl_modal.gateway.guests import Guests
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.gateway.middleware import Observed
from internvl_modal.gateway.openai_routes import openai_router
from internvl_modal.gateway.page.routes import page_router
from internvl_modal.gateway.telling import Telling
from internvl_modal.protocol.endpoint import preview


def create_app(
    client: AsyncClient,
    *,
    api_key: SecretStr | str,
    max_body: int = MAX_BODY,
    max_requests: int | None = None,
    body_timeout: float = BODY_SECONDS,
) -> FastAPI:
    """The gateway as an ASGI app that asks ``client``, which stays its caller's to close.

    Callers show ``api_key`` as a bearer or as the password of HTTP basic authentication; an empty
    one raises ConfigError. ``max_body``: bytes of a request, ``body_timeout``: seconds in which it
    must be there. ``max_requests``: how many are under way at most, by default twice as many as
    the model's server answers at once, 128 where that is not known.

    >>> app = create_app(AsyncClient("local"), api_key="...")  # doctest: +SKIP
    """
    key = checked_key(api_key, "the gateway's key")
    if key is None:
        raise ConfigError(
            "the gateway's key is empty", hint="choose a long one: whoever has it may ask the model"
        )
    # A registry of its own: two apps in one process, as in tests, would otherwise share counters.
    metrics, model = Metrics(CollectorRegistry()), Model(client)
    if max_requests is None:
        max_requests = 2 * (preview(client.backend).sessions or 0) or MAX_REQUESTS

    app = _empty_app(model)
    app.state.telling = Telling(client, key)
    app.state.client = client  # for whoever runs the app, to close it in the loop that used it
    guests = app.state.guests = Guests()
    limits = Limits(max_body, max_requests, body_timeout)
    # Added first, so inside: what it refuses is counted and gets an id from ``Observed``.
    app.add_middleware(Admission, key=key, guests=guests, limits=limits)
    app.add_middleware(Observed, metrics=metrics)
    add_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the gateway runs; the model's server is not asked, so none is woken."""
        return {"status": "ok"}

    app.include_router(describe_router(model, metrics), dependencies=KEYED)
    app.include_router(openai_router(model, metrics), dependencies=KEYED)
    app.include_router(page_router(guests))
    return app


def _empty_app(model: Model) -> FastAPI:
    """FastAPI without its own pages, whose scripts come from another host; closes ``model``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        model.close()

    return FastAPI(
        title="InternVL gateway",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the body at an address that a proxy may not know.
        redirect_slashes=False,
    )
