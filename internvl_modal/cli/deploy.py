"""Commands about deployments, and ``serve``: parsing and printing only.

Modal and this package's deployment code are imported inside the functions: ``--help`` and
``describe`` must not pay half a second for them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from internvl_modal.deployment.handle import Deployment

Name = Annotated[str | None, typer.Argument(help="A deployment's name or its model's.")]
Environment = Annotated[str | None, typer.Option(help="Modal environment.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def deploy(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A name of the catalog (plan --list) or owner/name; internvl2_5-78b by default."
        ),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Modal's GPU string: A100-80GB:4; several with commas.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="lmdeploy-0.7.3, lmdeploy (0.18) or vllm; by the model.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the app.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be made.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the model answers.")] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave a new app that does not answer.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the plan refuses.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Any other option of deploy()."),
    ] = None,
) -> None:
    """Put a model on Modal, or update its deployment."""
    from internvl_modal.deployment.api import deploy as make

    # ``-o`` values stay text: pydantic reads them as it reads the environment.
    others: dict[str, Any] = dict(_pair(text) for text in option or [])
    others |= {"gpu": gpu, "name": name, "wait": wait, "keep": keep, "force": force}
    others |= {"engine": engine} if engine else {}  # or it is among the ``-o``
    made = make(model, dry_run=dry_run, **others)
    if dry_run:
        typer.echo(made.spec)
    else:
        _show(made)


def status(name: Name = None, environment: Environment = None, as_json: Json = False) -> None:
    """Show a deployment's state, containers and requests."""
    from dataclasses import asdict

    found = asdict(connected(name, environment).status())
    typer.echo(json.dumps(found) if as_json else "  ".join(f"{k} {v}" for k, v in found.items()))


def logs(
    name: Name = None,
    environment: Environment = None,
    tail: Annotated[int, typer.Option(help="Lines to begin with.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
) -> None:
    """Print a deployment's log."""
    for line in connected(name, environment).logs(tail=tail, follow=follow):
        typer.echo(line)


def scale(
    name: Name = None,
    environment: Environment = None,
    minimum: Annotated[int | None, typer.Option("--min", help="Containers always running.")] = None,
    maximum: Annotated[int | None, typer.Option("--max", help="Most containers.")] = None,
) -> None:
    """Change how many GPU containers run, until the next deploy."""
    connected(name, environment).scale(min=minimum, max=maximum)


def stop(name: Name = None, environment: Environment = None) -> None:
    """Stop a deployment and its containers; weights and key stay."""
    connected(name, environment).stop()


def connect(
    name: Name = None,
    environment: Environment = None,
    show_key: Annotated[bool, typer.Option("--show-key", help="Print the key as well.")] = False,
) -> None:
    """Show where a deployment answers."""
    from internvl_modal.deployment.container_config import KEY

    found = connected(name, environment)
    _show(found)
    # On request only: terminals are shared and recorded.
    if show_key:
        typer.echo(f"key     {found.secrets[KEY]}")


def connected(name: str | None, environment: str | None) -> Deployment:
    """The deployment of that name, or of a model."""
    from internvl_modal.deployment.api import connect as find

    return find(name, environment=environment)


def _show(found: Deployment) -> None:
    urls = found.urls
    typer.echo(f"{found!r}\nopenai  {urls['openai']}\nrest    {urls['rest']}")


def _pair(text: str) -> tuple[str, object]:
    """``NAME=VALUE``; raises BadParameter."""
    from internvl_modal.deployment.options import DeployArguments

    name, equals, value = text.partition("=")
    # Both spellings, as options are written with dashes on a command line.
    name = name.replace("-", "_")
    if not equals:
        raise typer.BadParameter(f"{name!r} is not NAME=VALUE")
    if name not in DeployArguments.__annotations__:
        raise typer.BadParameter(
            f"{name!r} is none of {', '.join(DeployArguments.__annotations__)}"
        )
    return name, value
