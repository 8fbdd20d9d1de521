"""An app on Modal while it runs: its state, its log, its containers, its schedules, its end.

What a deployment can do without its key: each method asks Modal when it is called.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import timezone as zones
from functools import partial
from typing import Any, Literal, TypeAlias

from pydantic import SecretStr

from internvl_modal._utils.short_errors import short_errors
from internvl_modal.deployment import billing, modal_api, schedules
from internvl_modal.deployment.billing import Stats
from internvl_modal.deployment.modal_api import errors_of, outside_loop
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.scheduled import Schedule
from internvl_modal.errors import ConfigError, DeployError

State: TypeAlias = Literal["stopped", "cold", "starting", "ready"]


@dataclass(frozen=True)
class Status:
    """One moment of the model's server.

    "cold": the next request starts it; "starting": requests wait and none is answered yet.
    """

    state: State
    containers: int
    running: int
    """Requests being answered."""
    waiting: int
    """Requests that wait for a container."""


@short_errors
@dataclass(frozen=True)
class ManagedApp:
    """What is known of an app that this package has deployed, and what can be done with it."""

    options: DeployOptions
    """What was chosen, as far as this machine knows; name, model and GPU at least."""
    api_key: SecretStr | None = field(repr=False)
    """None where this machine does not know it: such a deployment can be managed, not asked."""
    proxy: tuple[SecretStr, SecretStr] | None = field(default=None, repr=False)
    found_urls: Mapping[str, str] | None = field(default=None, repr=False)
    """None where it was only a dry run."""

    @property
    def name(self) -> str:
        """The app's name."""
        assert self.options.name is not None  # nosec B101  # design sets it: for the type checker
        return self.options.name

    @property
    def dry_run(self) -> bool:
        """Whether nothing was made."""
        return self.found_urls is None

    @property
    def urls(self) -> Mapping[str, str]:
        """Where it answers: ``openai`` (up to ``/v1``) and ``rest``.

        As they were when the handle was made: Modal's URLs follow from names and do not change with
        a deploy.
        """
        if self.found_urls is None:
            raise DeployError(
                f"{self.name} was only a dry run", hint="deploy it without dry_run=True"
            )
        return self.found_urls

    def status(self) -> Status:
        """Containers, requests and state of the model's server.

        Modal's statistics tell them: the server itself is neither woken nor kept awake.
        """
        self._require_real()
        if outside_loop(lambda: modal_api.tags_of(self.name, self.options.environment)) is None:
            return Status("stopped", 0, 0, 0)
        with errors_of(f"asking for the state of {self.name}"):
            stats = outside_loop(self._serve().get_current_stats)
        state: State = "ready" if stats.num_total_runners else "cold"
        if stats.backlog and not stats.num_running_inputs:
            state = "starting"
        return Status(state, stats.num_total_runners, stats.num_running_inputs, stats.backlog)

    def logs(self, *, tail: int = 100, follow: bool = False) -> Iterator[str]:
        """The last ``tail`` lines of the app's log; with ``follow`` new ones as they come."""
        import modal

        self._require_real()
        if tail < 0:
            raise ConfigError(f"tail = {tail}: it must be at least 0")
        # Each ``next`` is a call of its own, in a thread where a loop runs here: the iterator is
        # Modal's and blocks between two lines.
        with errors_of(f"reading the log of {self.name}"):
            app = outside_loop(
                lambda: modal.App.lookup(self.name, environment_name=self.options.environment)
            )
            sources = [
                *([app.logs.tail(tail)] if tail else []),
                *([app.logs.stream()] if follow else []),
            ]
            for source in sources:
                entries = iter(source)
                while (entry := outside_loop(partial(next, entries, None))) is not None:
                    yield entry.message.rstrip("\n")

    def scale(self, *, min: int | None = None, max: int | None = None) -> None:
        """Change how many GPU containers run at least and at most, until the next deploy.

        Containers that run are not stopped by it before they are idle.
        """
        self._require_real()
        wanted = {"min_containers": min, "max_containers": max}
        given = {name: value for name, value in wanted.items() if value is not None}
        if not given:
            raise ConfigError("scale changes nothing", hint="give a minimum, a maximum or both")
        # A maximum of 0 would be an app that takes requests and never answers one.
        if (min or 0) < 0 or (max is not None and max < builtins.max(min or 0, 1)):
            raise ConfigError(
                f"min = {min}, max = {max}: these are no numbers of containers",
                hint="give a minimum of 0 or more, and a maximum of 1 or more that is not below it",
            )
        with errors_of(f"scaling {self.name}"):
            outside_loop(lambda: self._serve().autoscaler.update(**given))

    def stats(self, *, since: datetime | timedelta = timedelta(hours=1)) -> Stats:
        """What its server has done since then: requests, containers, how long they took.

        Modal's statistics, a week back at most; asking for them wakes no container.
        """
        self._require_real()
        return outside_loop(lambda: billing.stats(self.name, self.options.environment, since))

    def prewarm(
        self,
        *,
        at: str,
        until: str,
        timezone: str = "UTC",
        days: str = "*",
        containers: int = 1,
    ) -> None:
        """Keep containers ready from one time of day to another, by Modal's schedules.

        Times such as "08:45" in ``timezone`` ("Europe/Berlin"), ``days`` such as "mon-fri". A
        container begins to load at ``at``; all of the time until ``until`` is paid for. It holds
        until it is set anew, or ``unschedule`` or ``stop``, whatever becomes of this machine.
        ``containers`` must not be above ``max_containers``.
        """
        self._require_real()
        if containers < 1:
            raise ConfigError(f"containers = {containers}: it must be at least 1")
        times = schedules.prewarming(at, until, timezone, days)
        kept = {"containers": containers, "minimum": self.options.min_containers}
        self._schedule(schedules.PREWARM, times, kept)

    def stop_after(
        self,
        *,
        idle: float | timedelta | None = None,
        at: str | datetime | None = None,
        timezone: str = "UTC",
    ) -> None:
        """Have Modal stop the app by itself: after so long without a request, at a time, or both.

        ``idle`` is seconds or a timedelta, looked at every five minutes; ``at`` a moment, or the
        next such time of day in ``timezone``. It works without this machine, and ends with the app.
        """
        self._require_real()
        seconds, moment = schedules.stopping(idle, at, timezone)
        due = {
            "armed": datetime.now(zones.utc).isoformat(),
            "idle": seconds,
            "at": moment.isoformat() if moment else None,
        }
        self._schedule(schedules.STOP, schedules.stop_times(seconds, moment), due)

    def unschedule(self) -> None:
        """Take back what ``prewarm`` and ``stop_after`` have set; containers stay as they are."""
        self._require_real()
        outside_loop(lambda: schedules.remove(self.name, self.options.environment))

    def stop(self) -> None:
        """Stop the app, its schedules and all its containers; weights and key are kept for the
        next deploy.
        """
        import modal

        self._require_real()
        with errors_of(f"stopping {self.name}"):
            outside_loop(
                lambda: modal.App.lookup(
                    self.name, environment_name=self.options.environment
                ).stop()
            )
        self.unschedule()

    def _schedule(
        self, kind: str, times: tuple[schedules.Timed, ...], what: Mapping[str, Any]
    ) -> None:
        own, where = schedules.own_name(self.name, kind), self.options.environment
        schedule = Schedule(self.name, own, where, **what)
        outside_loop(lambda: schedules.publish(schedule, times))

    def _serve(self) -> Any:
        return modal_api.function(self.name, "serve", self.options.environment)

    def _require_real(self) -> None:
        """Raise DeployError where there is nothing on Modal."""
        _ = self.urls  # raises it; an assertion would be gone under ``python -O``
