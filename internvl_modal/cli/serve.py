"""``internvl-modal serve``: the gateway on this machine."""

from __future__ import annotations

import logging
import secrets
import socket
from ipaddress import ip_address
from typing import Annotated

import typer

from internvl_modal.errors import ConfigError, MissingExtraError


def serve(
    backend: Annotated[str | None, typer.Option(help="local, lmdeploy, modal or a URL.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model to serve.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
) -> None:
    """Run the gateway on this machine. Its key is INTERNVL_MODAL_GATEWAY_KEY, else a new one."""
    try:
        from internvl_modal.gateway.app import create_app
        from internvl_modal.gateway.listening import run
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "gateway") from error
    from internvl_modal.client.aio import AsyncClient
    from internvl_modal.settings import Settings

    # A gateway without a key would be open to every page in a browser on this machine.
    given, made = Settings.load().gateway_key, secrets.token_urlsafe(32)
    client = AsyncClient(backend, model=model)
    app = create_app(client, api_key=given or made)
    # Bound before uvicorn starts, so that a port in use is our error and port 0 can be told.
    with _listen(host, port) as listening:
        if given is None:
            # Once, on standard error: it is kept nowhere, and standard output may be a log.
            typer.echo(f"key: {made}", err=True)
        # An IPv6 address in a URL stands in brackets (RFC 3986, 3.2.2).
        shown = f"[{host}]" if ":" in host else host
        port = listening.getsockname()[1]
        typer.echo(f"listening on http://{shown}:{port}/", err=True)
        here = "localhost" if _is_every_address(host) else shown
        typer.echo(_welcome(f"http://{here}:{port}/", app.state.guests.invite()), err=True)
        _log_requests()
        run(app, listening, client)


def _welcome(url: str, once: str) -> str:
    """What to do now; a browser does not send what stands after the #, so no log has it."""
    return (
        f"page: {url}#once={once} (opens it once without the key)\n"
        f'example: curl -H "Authorization: Bearer $KEY" -F image=@photo.jpg {url}'
    )


def _is_every_address(host: str) -> bool:
    """Whether ``host`` stands for all addresses of this machine, and is none to be opened."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host


def _log_requests() -> None:
    """A line on standard error for each request, and what the package itself has to say."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger("internvl_modal").setLevel(logging.INFO)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="choose another --host or --port; port 0 takes a free one",
        ) from error
