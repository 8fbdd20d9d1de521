"""Schedules, bills and statistics, with Modal's own client against a control plane."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from modal_proto import api_pb2 as p

from internvl_modal.deployment import schedules
from internvl_modal.deployment.scheduled import Schedule
from internvl_modal.errors import ConfigError
from tests.deploy.machine import REPOSITORY, Machine
from tests.deploy.test_cli import run
from tests.modal_plane import Plane

APP = "multimodal-internvl2_5-1b"
PAGE = REPOSITORY / "docs" / "deploy.md"


@pytest.fixture(scope="module")
def deployed(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine(plane, tmp_path_factory.mktemp("machine"))
    machine.python('say(repr(deploy("internvl2_5-1b", wait=False)))')
    return machine


def serve_of(plane: Plane) -> str:
    app = plane.deployed(APP)
    assert app
    return app.functions["serve"]


def schedule_of(plane: Plane, kind: str) -> tuple[dict[str, str], Schedule]:
    """Cron strings with their time zones by function, and what they are told."""
    app = plane.deployed(f"{APP}-{kind}")
    assert app
    times, told = {}, None
    for name, function_id in app.functions.items():
        active = plane.functions[function_id].active
        assert active
        cron, period = active.schedule.cron, active.schedule.period
        every = f"every {period.seconds:g} s"
        times[name] = f"{cron.cron_string} {cron.timezone}" if cron.cron_string else every
        told = plane.secrets[active.secret_ids[0].removeprefix("st-")]["INTERNVL_MODAL_SCHEDULE"]
    assert told
    return times, Schedule(**json.loads(told))


def test_prewarming(deployed: Machine, plane: Plane) -> None:
    deployed.python(
        f"connect({APP!r}).prewarm(at='08:45', until='18:00', timezone='Europe/Berlin',"
        " days='mon-fri', containers=2)\nsay(1)"
    )
    times, schedule = schedule_of(plane, "prewarm")
    assert times == {
        "warm-0": "45 8 * * mon-fri Europe/Berlin",
        "cool-1": "0 18 * * mon-fri Europe/Berlin",
    }
    assert (schedule.app, schedule.containers, schedule.minimum) == (APP, 2, 0)


def test_no_container_at_all(deployed: Machine) -> None:
    call = f"connect({APP!r}).prewarm(at='8:45', until='18:00', containers=0)"
    said = deployed.python(f"attempt(lambda: {call})")
    assert said[:2] == ["ConfigError", "containers = 0: it must be at least 1"]


def test_stopping(deployed: Machine, plane: Plane) -> None:
    deployed.python(
        f"connect({APP!r}).stop_after(idle=1800, at='22:30', timezone='Europe/Berlin')\nsay(1)"
    )
    times, schedule = schedule_of(plane, "stop-after")
    assert schedule.at is not None
    moment = datetime.fromisoformat(schedule.at)
    assert timedelta() < moment - datetime.now(timezone.utc) <= timedelta(days=1)
    at = f"{moment.minute} {moment.hour} {moment.day} {moment.month} * UTC"
    assert times == {"stop_when_due-0": "every 300 s", "stop_when_due-1": at}
    assert schedule.idle == 1800


def test_taking_them_back(deployed: Machine, plane: Plane) -> None:
    deployed.python(f"connect({APP!r}).prewarm(at='08:45', until='18:00')\nsay(1)")
    deployed.python(f"connect({APP!r}).unschedule()\nsay(1)")
    assert plane.deployed(f"{APP}-prewarm") is None
    assert plane.deployed(f"{APP}-stop-after") is None
    assert plane.deployed(APP)


DUE = """
from internvl_modal.deployment import scheduled
say(scheduled.stop_when_due())
"""


@pytest.fixture
def schedule(deployed: Machine) -> Iterator[Machine]:
    """What runs by a schedule, in a process that knows what its container would."""
    yield deployed
    deployed.env = {}


def told(minutes: float, **more: object) -> dict[str, str]:
    armed = datetime.now(timezone.utc) - timedelta(minutes=minutes)
    return Schedule(
        APP, f"{APP}-stop-after", None, armed=armed.isoformat(), **more
    ).to_environment()  # type: ignore[arg-type]


def test_it_is_not_stopped_before_it_is_idle(schedule: Machine, plane: Plane) -> None:
    schedule.python(f"connect({APP!r}).stop_after(idle=600)\nsay(1)")
    serve = serve_of(plane)
    schedule.env = told(5, idle=600.0)
    assert schedule.python(DUE) == "it is not due", "it was armed five minutes ago"
    schedule.env = told(60, idle=600.0)
    plane.counts[serve] = p.FunctionGetTimeRangeStatsResponse(input_success_count=1)
    assert schedule.python(DUE) == "it is not due", "there was a request"
    plane.counts.clear()
    plane.stats[serve] = p.FunctionStats(num_running_inputs=1, num_total_tasks=1)
    assert schedule.python(DUE) == "it is not due", "one runs"
    plane.stats.clear()
    assert plane.deployed(APP)


def test_warm_and_cool(schedule: Machine, plane: Plane) -> None:
    scaling = plane.functions[serve_of(plane)].scaling
    schedule.env = told(0, containers=2, minimum=0)
    schedule.python("from internvl_modal.deployment import scheduled\nscheduled.warm()\nsay(1)")
    assert scaling.min_containers == 2
    schedule.python("from internvl_modal.deployment import scheduled\nscheduled.cool()\nsay(1)")
    assert scaling.min_containers == 0


def test_another_machine_learns_engine_and_gpus(
    deployed: Machine, plane: Plane, tmp_path: Path
) -> None:
    """From the app's tags, which hold no commas, slashes or colons."""
    call = (
        "deploy('internvl3_5-8b', name='today', engine='vllm', gpu=['L40S', 'A10:2'], wait=False)"
    )
    deployed.python(f"say(repr({call}))")
    other = Machine(plane, tmp_path / "other")
    engine, gpu, model, dialect = other.python(
        "d = connect('today', api_key='k')\n"
        "preview = d.backend().preview()\n"
        "say([d.options.engine, d.options.gpu, d.options.model, preview.capabilities.dialect])"
    )
    assert (engine, gpu, dialect) == ("vllm", "L40S,A10:2", "vllm")
    assert model == "OpenGVLab/InternVL3_5-8B"


def test_what_it_cost(deployed: Machine, plane: Plane) -> None:
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    plane.bill = [
        item(hour - timedelta(hours=2), APP, {"H100": "3.00", "CPU": "0.50"}),
        item(hour - timedelta(hours=1), f"{APP}-weights", {"CPU": "0.10"}, tag=APP),
        item(hour - timedelta(hours=2), "another", {"H100": "100"}),
        item(hour - timedelta(hours=2), APP, {"H100": "100"}, environment="other"),
        item(hour - timedelta(hours=30), APP, {"H100": "100"}),
        item(hour, APP, {"H100": "100"}),  # this hour has not ended
    ]
    plane.counts[serve_of(plane)] = p.FunctionGetTimeRangeStatsResponse(input_success_count=900)
    usd, resources, pictures, measured, planned, told = deployed.python(
        "from datetime import timedelta\n"
        f"c = connect({APP!r}).cost(since=timedelta(hours=5))\n"
        f"d = connect({APP!r}).cost(since=timedelta(hours=5), pictures=1800)\n"
        "b = c.billed\n"
        "say([b.usd, b.by_resource, b.pictures, b.per_1000, c.per_1000, d.billed.per_1000])"
    )
    assert usd == pytest.approx(3.6)
    assert resources == pytest.approx({"H100": 3.0, "CPU": 0.6})
    assert (pictures, measured, told) == (900, pytest.approx(4.0), pytest.approx(2.0))
    assert len(planned) == 2
    (asked,) = plane.calls("WorkspaceBillingReport")[:1]
    assert (asked.resolution, list(asked.tag_names)) == ("h", ["deployment"])


def item(
    when: datetime,
    name: str,
    resources: dict[str, str],
    *,
    tag: str | None = None,
    environment: str = "main",
) -> p.WorkspaceBillingReportItem:
    """A line of a bill; an app without a tag is known by its name."""
    line = p.WorkspaceBillingReportItem(
        object_id="ap-1",
        description=name,
        environment_name=environment,
        cost=str(sum(map(float, resources.values()))),
        cost_by_resource=resources,
        tags={"deployment": tag} if tag else {},
    )
    line.interval.FromDatetime(when)
    return line


def test_what_it_did(deployed: Machine, plane: Plane) -> None:
    found = p.FunctionGetTimeRangeStatsResponse(
        input_success_count=7,
        input_failure_count=2,
        input_timeout_count=1,
        container_started_count=3,
        container_total_count=4,
        container_error_count=1,
    )
    execution = found.input_percentile_stats["execution_time"]
    execution.unit = "s"
    execution.percentiles.add(percentile_basis_points=9500, value=2.5)
    plane.counts[serve_of(plane)] = found
    counts, times = deployed.python(
        f"s = connect({APP!r}).stats()\n"
        "say([[s.answered, s.failed, s.timed_out, s.started, s.containers, s.broken],"
        " {k: [v.unit, list(v.percentiles.items())] for k, v in s.requests.items()}])"
    )
    assert counts == [7, 2, 1, 3, 4, 1]
    assert times == {"execution_time": ["s", [[95.0, 2.5]]]}


def test_bills_and_statistics_that_there_are_not(deployed: Machine) -> None:
    said = deployed.python(
        "from datetime import datetime, timedelta, timezone\n"
        f"attempt(lambda: connect({APP!r}).stats(since=timedelta(days=8)))"
    )
    assert said[:2] == ["ConfigError", said[1]]
    assert "a week back" in said[1]
    said = deployed.python(
        "from datetime import datetime, timezone\n"
        f"attempt(lambda: connect({APP!r}).cost(since=datetime.now(timezone.utc)))"
    )
    assert said[0] == "ConfigError"
    assert "whole hours" in said[1]


def test_the_same_from_the_command_line(deployed: Machine, plane: Plane) -> None:
    """As ``docs/deploy.md`` has it, of a smaller model."""
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    plane.bill = [item(hour - timedelta(hours=2), APP, {"H100": "3.00", "CPU": "0.60"})]
    found = p.FunctionGetTimeRangeStatsResponse(input_success_count=900, container_total_count=2)
    found.input_percentile_stats["execution_time"].percentiles.add(
        percentile_basis_points=9500, value=2.5
    )
    plane.counts[serve_of(plane)] = found
    commands = re.findall(r"^internvl-modal (.*-- ?\S.*|unschedule.*)$", PAGE.read_text(), re.M)
    said = {}
    for line in commands:
        command, model, *options = shlex.split(line)
        assert model == "internvl2_5-78b"
        said[command] = run(deployed, command, "internvl2_5-1b", *options)
        if command == "prewarm":
            times, _ = schedule_of(plane, "prewarm")
            assert times["warm-0"] == "45 8 * * mon-fri Europe/Berlin"
        if command == "stop-after":
            assert schedule_of(plane, "stop-after")[1].idle == 7200
    assert list(said) == ["cost", "stats", "prewarm", "stop-after", "unschedule"]
    assert "by the bill: 3.60 USD" in said["cost"]
    assert "4.00 USD for 1,000" in said["cost"]
    assert "900 answered, 0 failed" in said["stats"]
    assert "execution_time" in said["stats"]
    assert plane.deployed(f"{APP}-prewarm") is plane.deployed(f"{APP}-stop-after") is None
    told = json.loads(run(deployed, "cost", "internvl2_5-1b", "--hours", "24", "--json"))
    assert told["billed"]["usd"] == pytest.approx(3.6)
    told = json.loads(run(deployed, "cost", "internvl2_5-1b", "--json"))
    assert (told["billed"], told["per_hour"] > 0) == (None, True)
    assert json.loads(run(deployed, "stats", "internvl2_5-1b", "--json"))["answered"] == 900


def test_a_stop_by_schedule_ends_both_apps(schedule: Machine, plane: Plane) -> None:
    schedule.python(f"connect({APP!r}).stop_after(idle=600)\nsay(1)")
    assert plane.deployed(f"{APP}-stop-after")
    plane.counts.clear()
    schedule.env = told(60, idle=600.0)
    assert schedule.python(DUE) == "no request for 600 s"
    assert plane.deployed(APP) is None
    assert plane.deployed(f"{APP}-stop-after") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("8.45", "18:00", "UTC", "*"), "at='8.45' is no time of day"),
        (("08:45", "24:00", "UTC", "*"), "until='24:00'"),
        (("08:45", "08:45", "UTC", "*"), "are the same time"),
        (("08:45", "18:00", "Europe/Atlantis", "*"), "timezone='Europe/Atlantis'"),
        (("08:45", "18:00", "UTC", "weekdays"), "days='weekdays'"),
    ],
)
def test_times_that_are_none(arguments: tuple[str, str, str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        schedules.prewarming(*arguments)


def test_over_midnight() -> None:
    warm, cool = schedules.prewarming("22:00", "06:30", "UTC", "mon-fri")
    assert (warm.cron, cool.cron) == ("0 22 * * mon-fri", "30 6 * * *")


def test_when_to_stop() -> None:
    later = datetime.now(timezone.utc) + timedelta(hours=3)
    assert schedules.stopping(None, later, "UTC") == (None, later)
    naive = later.replace(tzinfo=None)
    assert schedules.stopping(timedelta(hours=1), naive, "UTC") == (3600.0, later)
    for idle, at in ((None, None), (5, None), (None, later - timedelta(days=1)), (None, "25:00")):
        with pytest.raises(ConfigError):
            schedules.stopping(idle, at, "UTC")
    assert len(schedules.own_name("a" * 64, "stop-after")) == 64
