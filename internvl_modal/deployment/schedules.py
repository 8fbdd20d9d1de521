"""Schedules of a deployment: ready from one time of day to another, stopped by itself.

Decides what Modal is to run and when, and puts it into an app of its own; what runs is in
``scheduled``. Times are checked here, as Modal checks none of them before they fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from internvl_modal.deployment import modal_api, modal_build, scheduled
from internvl_modal.deployment.container_images import bare_image
from internvl_modal.deployment.modal_api import errors_of
from internvl_modal.deployment.scheduled import Schedule
from internvl_modal.errors import ConfigError

if TYPE_CHECKING:
    import modal

PREWARM, STOP = "prewarm", "stop-after"
"""Ends of the names of the apps that hold the schedules."""
LOOK = timedelta(minutes=5)
"""Between two looks whether a deployment is idle; each takes a second of a fraction of a core."""
_DAY = "mon|tue|wed|thu|fri|sat|sun"
_DAYS = re.compile(rf"\*|(?:{_DAY})(?:-(?:{_DAY}))?(?:,(?:{_DAY})(?:-(?:{_DAY}))?)*")


@dataclass(frozen=True)
class Timed:
    """A function of ``scheduled`` and its times in cron's form, in a time zone; "" for ``LOOK``."""

    run: Callable[[], object]
    cron: str
    zone: str = "UTC"


def prewarming(at: str, until: str, zone: str, days: str) -> tuple[Timed, Timed]:
    """Ready from ``at`` until ``until`` on ``days``; raises ConfigError.

    >>> warm, cool = prewarming("08:45", "18:00", "UTC", "mon-fri")
    >>> warm.cron, cool.cron
    ('45 8 * * mon-fri', '0 18 * * mon-fri')
    """
    begin, end = _time("at", at), _time("until", until)
    _zone(zone)
    if not _DAYS.fullmatch(days):
        raise ConfigError(f"days={days!r}", hint="such as mon-fri, or sat,sun, or * for every day")
    if begin == end:
        raise ConfigError(f"at={at!r} and until={until!r} are the same time")
    # Over midnight the end is on another day, and to end what has not begun does no harm.
    until_days = days if end > begin else "*"
    return (
        Timed(scheduled.warm, f"{begin.minute} {begin.hour} * * {days}", zone),
        Timed(scheduled.cool, f"{end.minute} {end.hour} * * {until_days}", zone),
    )


def stopping(
    idle: float | timedelta | None, at: str | datetime | None, zone: str
) -> tuple[float | None, datetime | None]:
    """Seconds without a request, and the moment in UTC; raises ConfigError.

    A time of day is the next one in ``zone``.
    """
    seconds = idle.total_seconds() if isinstance(idle, timedelta) else idle
    if seconds is None and at is None:
        raise ConfigError("stop_after needs idle= or at=")
    if seconds is not None and not 60 <= seconds <= 7 * 86400:
        raise ConfigError(f"idle={seconds:g} seconds: it must lie between 60 and a week")
    if at is None:
        return seconds, None
    now = datetime.now(_zone(zone))
    if isinstance(at, str):
        of_day = _time("at", at)
        moment = now.replace(hour=of_day.hour, minute=of_day.minute, second=0, microsecond=0)
        moment += timedelta(days=moment <= now)
    else:
        moment = at if at.tzinfo else at.replace(tzinfo=_zone(zone))
        if not now < moment < now + timedelta(days=365):
            raise ConfigError(f"at={at} is not within a year from now")
    return seconds, moment.astimezone(timezone.utc)


def stop_times(idle: float | None, at: datetime | None) -> tuple[Timed, ...]:
    """When to look whether to stop."""
    looks = (Timed(scheduled.stop_when_due, ""),) if idle is not None else ()
    if at is None:
        return looks
    # The minute after: cron knows no seconds, and must not come too early.
    due = at + timedelta(minutes=1 if at.second or at.microsecond else 0)
    return (
        *looks,
        Timed(scheduled.stop_when_due, f"{due.minute} {due.hour} {due.day} {due.month} *"),
    )


def publish(schedule: Schedule, times: tuple[Timed, ...]) -> None:
    """Put the functions onto Modal under the schedule's own name; raises DeployError."""
    with errors_of(f"deploying {schedule.own}"):
        _app(schedule, times).deploy(environment_name=schedule.environment)


def remove(app: str, environment: str | None, kinds: tuple[str, ...] = (PREWARM, STOP)) -> None:
    """Stop the apps that hold the schedules, where there are any; raises DeployError."""
    import modal

    for kind in kinds:
        name = own_name(app, kind)
        if modal_api.tags_of(name, environment) is not None:
            with errors_of(f"stopping {name}"):
                modal.App.lookup(name, environment_name=environment).stop()


def own_name(app: str, kind: str) -> str:
    """The name of an app's schedules; Modal takes 64 characters."""
    return f"{app[: 63 - len(kind)]}-{kind}"


def _app(schedule: Schedule, times: tuple[Timed, ...]) -> modal.App:
    import modal

    app = modal.App(schedule.own, tags=modal_build.bill_tags(schedule.app))
    image = modal_build.image_of(bare_image())
    for number, timed in enumerate(times):
        when = (
            modal.Cron(timed.cron, timezone=timed.zone)
            if timed.cron
            else modal.Period(seconds=int(LOOK.total_seconds()))
        )
        name = f"{timed.run.__name__}-{number}"
        variables: Mapping[str, str] = schedule.to_environment()
        app.function(
            name=name, image=image, env=dict(variables), schedule=when, cpu=0.125, timeout=300
        )(timed.run)
    return app


def _time(what: str, text: str) -> time:
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text.strip()):
        raise ConfigError(f"{what}={text!r} is no time of day", hint="such as 08:45")
    hour, _, minute = text.strip().partition(":")
    return time(int(hour), int(minute))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"timezone={name!r} is none that this machine knows",
            hint="such as Europe/Berlin; on a machine without zones: pip install tzdata",
        ) from error
