"""Commands about a deployment that runs: what it has cost and done, and when it is to run."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from internvl_modal.cli.deploy import Environment, Json, Name, connected

if TYPE_CHECKING:
    from internvl_modal.deployment.billing import DeploymentCost, Stats

Zone = Annotated[str, typer.Option(help="Time zone of the times, such as Europe/Berlin.")]


def cost(
    name: Name = None,
    environment: Environment = None,
    hours: Annotated[
        float | None, typer.Option(help="What Modal has billed, from so many hours back.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option(help="How many there were; else Modal's count of requests.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a deployment costs: by its plan, and by Modal's bill."""
    since = None if hours is None else timedelta(hours=hours)
    found = connected(name, environment).cost(since=since, pictures=pictures)
    told = {**asdict(found), "billed": found.billed and asdict(found.billed)}
    typer.echo(json.dumps(told, default=str) if as_json else _cost_text(found))


def _cost_text(found: DeploymentCost) -> str:
    low, high = found.per_1000
    lines = [f"by the plan: {found.per_hour:.2f} USD an hour, {low:.2f}-{high:.2f} USD for 1,000"]
    if (bill := found.billed) is not None:
        span = f"{bill.since:%Y-%m-%d %H:%M} to {bill.until:%Y-%m-%d %H:%M} UTC"
        each = "" if bill.per_1000 is None else f", {bill.per_1000:.2f} USD for 1,000"
        lines += [f"by the bill: {bill.usd:.2f} USD from {span}{each}"]
        lines += [f"  {resource}  {usd:.2f}" for resource, usd in bill.by_resource.items()]
    return "\n".join(lines)


def stats(
    name: Name = None,
    environment: Environment = None,
    hours: Annotated[float, typer.Option(help="How far to look back, a week at most.")] = 1,
    as_json: Json = False,
) -> None:
    """Say what a deployment has done: requests, containers, times."""
    found = connected(name, environment).stats(since=timedelta(hours=hours))
    typer.echo(json.dumps(asdict(found), default=str) if as_json else _stats_text(found))


def _stats_text(found: Stats) -> str:
    lines = [
        f"requests    {found.answered} answered, {found.failed} failed, "
        f"{found.timed_out} timed out",
        f"containers  {found.containers} ran, {found.started} started, {found.broken} broke",
    ]
    for what, times in {**found.requests, **found.starts}.items():
        values = ", ".join(f"{share:g}%: {value:g}" for share, value in times.percentiles.items())
        lines.append(f"{what} ({times.unit})  {values}")
    return "\n".join(lines)


def prewarm(
    *,
    name: Name = None,
    environment: Environment = None,
    at: Annotated[str, typer.Option(help="From this time of day on, such as 08:45.")],
    until: Annotated[str, typer.Option(help="Until this time of day.")],
    timezone: Zone = "UTC",
    days: Annotated[str, typer.Option(help="Such as mon-fri; every day by default.")] = "*",
    containers: Annotated[int, typer.Option(help="How many are kept ready.")] = 1,
) -> None:
    """Keep containers ready from one time of day to another."""
    found = connected(name, environment)
    found.prewarm(at=at, until=until, timezone=timezone, days=days, containers=containers)


def stop_after(
    name: Name = None,
    environment: Environment = None,
    idle: Annotated[float | None, typer.Option(help="Seconds without a request.")] = None,
    at: Annotated[str | None, typer.Option(help="The next such time of day.")] = None,
    timezone: Zone = "UTC",
) -> None:
    """Have Modal stop a deployment once idle, or at a time of day."""
    connected(name, environment).stop_after(idle=idle, at=at, timezone=timezone)


def unschedule(name: Name = None, environment: Environment = None) -> None:
    """Take back what prewarm and stop-after have set."""
    connected(name, environment).unschedule()
