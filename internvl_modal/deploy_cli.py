"""Commands about deployments, and ``serve``: parsing and printing only."""

from __future__ import annotations

import json
import secrets
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from internvl_modal.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from internvl_modal.deployment import Deployment

Name = Annotated[str | None, typer.Argument(help="A deployment's name or its model's.")]
Environment = Annotated[str | None, typer.Option(help="Modal environment.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (deploy, status, logs, scale, stop, connect, serve):
        app.command()(command)


def deploy(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A name of the catalog (plan --list) or owner/name; internvl2_5-78b by default."
        ),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Modal's GPU string: A100-80GB:4.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the app.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be made.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the model answers.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Even if the plan refuses.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Any other option of deploy()."),
    ] = None,
) -> None:
    """Put a model on Modal, or update its deployment."""
    from internvl_modal.deploying import deploy as make

    others = dict(_pair(text) for text in option or [])
    made = make(model, gpu=gpu, name=name, dry_run=dry_run, wait=wait, force=force, **others)  # type: ignore[arg-type]
    if dry_run:
        typer.echo(made.spec)
    else:
        _show(made)


def status(name: Name = None, environment: Environment = None, as_json: Json = False) -> None:
    """Show a deployment's state, containers and requests."""
    from dataclasses import asdict

    found = asdict(_connect(name, environment).status())
    typer.echo(json.dumps(found) if as_json else "  ".join(f"{k} {v}" for k, v in found.items()))


def logs(
    name: Name = None,
    environment: Environment = None,
    tail: Annotated[int, typer.Option(help="Lines to begin with.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
) -> None:
    """Print a deployment's log."""
    for line in _connect(name, environment).logs(tail=tail, follow=follow):
        typer.echo(line)


def scale(
    name: Name = None,
    environment: Environment = None,
    minimum: Annotated[int | None, typer.Option("--min", help="Containers always running.")] = None,
    maximum: Annotated[int | None, typer.Option("--max", help="Most containers.")] = None,
) -> None:
    """Change how many GPU containers run, until the next deploy."""
    _connect(name, environment).scale(min=minimum, max=maximum)


def stop(name: Name = None, environment: Environment = None) -> None:
    """Stop a deployment and its containers; weights and key are kept."""
    _connect(name, environment).stop()


def connect(
    name: Name = None,
    environment: Environment = None,
    show_key: Annotated[bool, typer.Option("--show-key", help="Print the key as well.")] = False,
) -> None:
    """Show where a deployment answers."""
    from internvl_modal.modal_runtime import KEY

    found = _connect(name, environment)
    _show(found)
    if show_key:
        typer.echo(f"key     {found.secrets[KEY]}")


def serve(
    backend: Annotated[str | None, typer.Option(help="local, lmdeploy, modal or an URL.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to serve.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
) -> None:
    """Run the gateway on this machine; its key is INTERNVL_MODAL_GATEWAY_KEY, else a new one."""
    try:
        import uvicorn

        from internvl_modal.gateway import create_app
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "gateway") from error
    from internvl_modal.client import AsyncClient
    from internvl_modal.settings import Settings

    given, made = Settings.load().gateway_key, secrets.token_urlsafe(32)
    app = create_app(AsyncClient(backend, model=model), api_key=given or made)
    with _listen(host, port) as listening:
        if given is None:
            typer.echo(f"key: {made}", err=True)
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"listening on http://{shown}:{listening.getsockname()[1]}/", err=True)
        config = uvicorn.Config(app, log_level="warning", ws="none")
        uvicorn.Server(config).run(sockets=[listening])


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


def _connect(name: str | None, environment: str | None) -> Deployment:
    from internvl_modal.deploying import connect as find

    return find(name, environment=environment)


def _show(found: Deployment) -> None:
    urls = found.urls
    typer.echo(f"{found!r}\nopenai  {urls['openai']}\nrest    {urls['rest']}")


def _pair(text: str) -> tuple[str, object]:
    """``NAME=VALUE``; raises BadParameter."""
    from internvl_modal.deploy_options import DeployArguments

    name, equals, value = text.partition("=")
    name = name.replace("-", "_")
    if not equals:
        raise typer.BadParameter(f"{name!r} is not NAME=VALUE")
    if name not in DeployArguments.__annotations__:
        raise typer.BadParameter(
            f"{name!r} is none of {', '.join(DeployArguments.__annotations__)}"
        )
    return name, value
