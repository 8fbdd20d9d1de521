"""What a deployment has really cost and done, as Modal reports it: bills by tag, statistics.

Modal bills by whole hours and days, and counts requests and not pictures; both are said beside the
figures rather than smoothed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from internvl_modal.deployment import modal_api, modal_build
from internvl_modal.deployment.modal_api import errors_of
from internvl_modal.errors import ConfigError
from internvl_modal.planning.cost import Cost

if TYPE_CHECKING:
    import modal

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINDOW = timedelta(days=7)
"""The longest that Modal's statistics look at in one question."""
REMEMBERED = timedelta(days=30)
"""How far back they go."""


@dataclass(frozen=True)
class Billed:
    """What Modal has billed for a deployment between two moments, in USD.

    Whole hours, or days where it is more than a week; downloads of the weights and schedules are in
    it, storage is not.
    """

    since: datetime
    until: datetime
    usd: float
    by_resource: Mapping[str, float]
    pictures: int | None
    """Those that were told, else the requests that were answered in that time; None where Modal
    does not remember them any more."""

    @property
    def per_1000(self) -> float | None:
        """USD for 1,000 pictures, cold starts and idle windows included; None without pictures."""
        return self.usd / self.pictures * 1000 if self.pictures else None


@dataclass(frozen=True)
class DeploymentCost(Cost):
    """What the plan says, and beside it what was billed."""

    billed: Billed | None = None
    """None where nobody has asked for it with ``since``."""

    @classmethod
    def beside(cls, planned: Cost, billed: Billed | None) -> DeploymentCost:
        """The plan's figures with the bill beside them."""
        same = {each.name: getattr(planned, each.name) for each in fields(Cost)}
        return cls(**same, billed=billed)


@dataclass(frozen=True)
class Distribution:
    """Values by percentile; ``unit`` as Modal names it."""

    unit: str
    percentiles: Mapping[float, float]


@dataclass(frozen=True)
class Stats:
    """What the model's server has done between two moments, as Modal counted it."""

    since: datetime
    until: datetime
    answered: int
    """Requests, whatever their status; one may hold several pictures."""
    failed: int
    timed_out: int
    containers: int
    """That ran at any time."""
    started: int
    """Containers that started in that time."""
    broken: int
    """Containers that ended with an error."""
    requests: Mapping[str, Distribution] = field(repr=False)
    """How long requests took, by Modal's own names for the parts of it."""
    starts: Mapping[str, Distribution] = field(repr=False)
    """How long containers took."""


def moment(since: datetime | timedelta) -> datetime:
    """In UTC; a duration is one before now, a time without a zone is this machine's."""
    if isinstance(since, timedelta):
        since = datetime.now(timezone.utc) - since
    return since.astimezone(timezone.utc)


def billed(
    app: str, environment: str | None, since: datetime | timedelta, pictures: int | None
) -> Billed:
    """Add up the bill of an app and of what was made for it; raises ConfigError, DeployError."""
    import modal

    now, begin = datetime.now(timezone.utc), moment(since)
    hourly = now - begin <= WINDOW
    step = HOUR if hourly else DAY
    begin, end = _floor(begin, step), _floor(now, step)
    if begin >= end:
        told = f"{end + step:%H:%M} UTC"
        raise ConfigError(
            f"Modal bills whole hours, and none has ended since {begin:%Y-%m-%d %H:%M} UTC",
            hint=f"ask again after {told}, or give an earlier since=",
        )
    where = modal_api.environment_name(environment)
    resources: dict[str, float] = defaultdict(float)
    with errors_of(f"asking for the bill of {app}"):
        items = modal.Workspace.from_context().billing.report(
            start=begin,
            end=end,
            resolution="h" if hourly else "d",
            tag_names=[modal_build.BILL],
        )
    for item in items:
        # The tag is newer than some deployments; those are known by their names.
        name = item.tags.get(modal_build.BILL) or item.description
        if name == app and item.environment_name == where:
            for resource, usd in item.cost_by_resource.items():
                resources[resource] += float(usd)
    if pictures is None:
        pictures = _answered(app, environment, begin, end, now)
    return Billed(begin, end, sum(resources.values()), dict(resources), pictures)


def stats(app: str, environment: str | None, since: datetime | timedelta) -> Stats:
    """Ask Modal; ``since`` is at most a week ago. Raises ConfigError, DeployError."""
    begin = moment(since)
    if datetime.now(timezone.utc) - begin > WINDOW:
        raise ConfigError(f"since={begin:%Y-%m-%d %H:%M}: Modal's statistics look a week back")
    with errors_of(f"asking for the statistics of {app}"):
        found = modal_api.function(app, "serve", environment).stats(since=begin)
    return Stats(
        since=found.since,
        until=found.until,
        answered=found.input_success_count,
        failed=found.input_failure_count,
        timed_out=found.input_timeout_count,
        containers=found.container_total_count,
        started=found.container_started_count,
        broken=found.container_error_count,
        requests=_distributions(found.input_percentile_stats),
        starts=_distributions(found.container_percentile_stats),
    )


def _answered(
    app: str, environment: str | None, begin: datetime, end: datetime, now: datetime
) -> int | None:
    """Requests that ``serve`` answered; None where that is too long ago, or it is not there."""
    if now - begin > REMEMBERED or modal_api.tags_of(app, environment) is None:
        return None
    serve: modal.Function[..., Any, Any] = modal_api.function(app, "serve", environment)
    with errors_of(f"asking for the statistics of {app}"):
        return sum(
            serve.stats(since=since, until=until).input_success_count
            for since, until in _windows(begin, end)
        )


def _windows(begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    while begin < end:
        until = min(begin + WINDOW, end)
        yield begin, until
        begin = until


def _floor(when: datetime, step: timedelta) -> datetime:
    start = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return start + (when - start) // step * step


def _distributions(found: Mapping[str, Any]) -> dict[str, Distribution]:
    return {
        name: Distribution(each.unit, {p.percentile: p.value for p in each.percentiles})
        for name, each in found.items()
    }
