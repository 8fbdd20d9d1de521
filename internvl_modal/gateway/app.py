"""The gateway as an ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from internvl_modal.client.aio import AsyncClient
from internvl_modal.credentials import checked_key
from internvl_modal.errors import ConfigError, MissingExtraError

try:
    from fastapi import Depends, FastAPI
    from prometheus_client import CollectorRegistry
except ImportError as missing:
    raise MissingExtraError(missing.name or "fastapi", "gateway") from missing
from internvl_modal.gateway.auth import key_check
from internvl_modal.gateway.describe_route import describe_router
from internvl_modal.gateway.errors import add_errors
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.gateway.middleware import Observed
from internvl_modal.gateway.openai_routes import openai_router

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request body; base64 makes a picture a third larger."""


def create_app(
    client: AsyncClient, *, api_key: SecretStr | str, max_body: int = MAX_BODY
) -> FastAPI:
    """The gateway as an ASGI app that asks ``client``, which it closes when it ends.

    Callers show ``api_key`` as a bearer or as the password of HTTP basic authentication; an empty
    one raises ConfigError.
    """
    key = checked_key(api_key, "the gateway's key")
    if key is None:
        raise ConfigError(
            "the gateway's key is empty", hint="choose a long one: whoever has it may ask the model"
        )
    metrics = Metrics(CollectorRegistry())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = FastAPI(title="InternVL gateway", lifespan=lifespan, redoc_url=None)
    app.add_middleware(Observed, metrics=metrics)
    add_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the gateway runs; the model's server is not asked, so none is woken."""
        return {"status": "ok"}

    keyed = [Depends(key_check(key))]
    app.include_router(describe_router(client, metrics, max_body), dependencies=keyed)
    app.include_router(openai_router(client, metrics, max_body), dependencies=keyed)
    return app
