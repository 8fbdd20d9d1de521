"""What runs by Modal's schedules: containers kept ready for a time, an app stopped by itself.

Modal imports this module by name in a container that has its client and nothing else, so it needs
the standard library and that. Each function lives in a small app beside the deployment's own: to
change a schedule must not deploy the model again.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

CONFIG = "INTERNVL_MODAL_SCHEDULE"
"""Name of the variable that holds all of ``Schedule``."""


@dataclass(frozen=True)
class Schedule:
    """What the functions need to know, carried in one variable as JSON."""

    app: str
    own: str
    """The app that the functions are in."""
    environment: str | None
    containers: int = 0
    """Kept ready while it is warm."""
    minimum: int = 0
    """Kept ready otherwise."""
    armed: str = ""
    """Since when it is idle without a request, in ISO's form, as the next one is."""
    idle: float | None = None
    """Seconds without a request after which it is stopped."""
    at: str | None = None
    """When it is stopped."""

    def to_environment(self) -> dict[str, str]:
        """Variables for a container."""
        return {CONFIG: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Schedule:
        """What ``to_environment`` put there."""
        return cls(**json.loads(os.environ[CONFIG]))


def warm() -> None:
    """Start the containers that are to be ready, and keep them."""
    schedule = Schedule.from_environment()
    _keep(schedule, schedule.containers)


def cool() -> None:
    """Keep as many as the deployment was made with; others end when they are idle."""
    schedule = Schedule.from_environment()
    _keep(schedule, schedule.minimum)


def stop_when_due() -> str:
    """Stop the app where it has been idle for long enough or its time has come; say what it did."""
    schedule = Schedule.from_environment()
    why = _why(schedule, datetime.now(timezone.utc))
    if not why:
        return "it is not due"
    import modal

    print(f"{schedule.app} is stopped: {why}", flush=True)  # noqa: T201
    for name in (schedule.app, schedule.own):  # the own app last: it ends this container
        modal.App.lookup(name, environment_name=schedule.environment).stop()
    return why


def _why(schedule: Schedule, now: datetime) -> str:
    """Why it is stopped now, "" if it is not."""
    if schedule.at is not None and now >= datetime.fromisoformat(schedule.at):
        return f"it is past {schedule.at}"
    if schedule.idle is None:
        return ""
    begin = now - timedelta(seconds=schedule.idle)
    if datetime.fromisoformat(schedule.armed) > begin:
        return ""
    serve = _serve(schedule)
    current = serve.get_current_stats()
    if current.num_running_inputs or current.backlog:
        return ""
    stats = serve.stats(since=begin, until=now)
    ended = stats.input_success_count + stats.input_failure_count + stats.input_timeout_count
    return "" if ended else f"no request for {schedule.idle:.0f} s"


def _keep(schedule: Schedule, containers: int) -> None:
    _serve(schedule).autoscaler.update(min_containers=containers)
    print(f"{schedule.app}: at least {containers} containers", flush=True)  # noqa: T201


def _serve(schedule: Schedule) -> Any:
    import modal

    return modal.Function.from_name(schedule.app, "serve", environment_name=schedule.environment)
