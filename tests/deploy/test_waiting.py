"""A deploy that waits: what it says, what counts as start-up, what it leaves behind."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web
from modal_proto import api_pb2 as p

from tests.deploy.conftest import Answering
from tests.deploy.machine import PRELUDE, Machine
from tests.modal_plane.apps import App

SMALL = "multimodal-internvl2_5-1b"
DEPLOY = """
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.publish import Publication
options = DeployOptions.kept({"model": "internvl2_5-1b", "startup_timeout": 3})
work = Publication(options, None, wait=True, force=False, dry_run=False, keep=KEEP)
"""


def app_of(machine: Machine) -> App:
    found = machine.plane.deployed(SMALL)
    assert found
    return found


def containers(machine: Machine, count: int) -> None:
    """Let Modal say that so many run or start."""
    serve = app_of(machine).functions["serve"]
    machine.plane.stats[serve] = p.FunctionStats(num_total_tasks=count, backlog=1)


@contextmanager
def hanging(machine: Machine, answering: Answering) -> Iterator[None]:
    """``serve`` takes every request and answers none; one container has come for them."""

    def hang() -> Awaitable[None]:
        containers(machine, 1)
        (machine.home / "asked").touch()
        return asyncio.sleep(600)

    answering(hang, 200)
    try:
        yield
    finally:
        machine.plane.stats.clear()


def test_it_says_what_it_waits_for(machine: Machine, answering: Answering) -> None:
    """Every 15 s, with what an hour costs and how to stop it."""
    ended = threading.Event()

    def answer() -> Awaitable[None]:
        async def later() -> None:
            containers(machine, 0)
            await asyncio.sleep(16)
            app, mark = app_of(machine), f"internvl-modal {app_of(machine).tags['version']}"
            containers(machine, 1)
            machine.plane.log(app.app_id, f"{mark}: loading the weights; and more\n")
            await asyncio.sleep(16)
            ended.set()

        return asyncio.sleep(0) if ended.is_set() else later()

    answering(answer, 200)
    try:
        code = f"{PRELUDE}deploy('internvl2_5-1b')"
        done = machine.command(sys.executable, "-c", code)
    finally:
        machine.plane.stats.clear()
    assert done.returncode == 0, done.stderr
    queued, loading = [line for line in done.stderr.splitlines() if line.startswith(SMALL)]
    assert queued.startswith(f"{SMALL}: queued for a GPU (")
    assert loading.startswith(f"{SMALL}: loading the weights (")
    for line in (queued, loading):
        assert re.search(r"\d+ s so far; \d+\.\d\d USD an hour while it runs", line)
        assert f"internvl-modal stop {SMALL} stops it" in line


def test_the_wait_for_a_gpu_is_no_start_up(machine: Machine, answering: Answering) -> None:
    """It takes ten seconds; a start-up may take three."""

    free: list[float] = []

    def queue() -> Awaitable[None]:
        containers(machine, 0)
        now = asyncio.get_running_loop().time()
        free.append(now + 10)
        return asyncio.sleep(free[0] - now)

    answering(queue, 200)
    try:
        assert machine.python(DEPLOY.replace("KEEP", "False") + "say(work.run().name)") == SMALL
    finally:
        machine.plane.stats.clear()


@pytest.mark.parametrize("keep", [False, True])
def test_a_start_up_has_its_time(machine: Machine, answering: Answering, keep: bool) -> None:
    """What is given up is stopped, unless it shall be kept."""
    with hanging(machine, answering):
        kind, message, hint = machine.python(
            DEPLOY.replace("KEEP", str(keep)) + "attempt(work.run)"
        )
    assert kind == "DeployError"
    assert "time is up, it is still pulling the image" in message
    assert (f"{SMALL} is stopped" in message) == (not keep)
    assert "keep=True" in hint
    assert bool(machine.plane.deployed(SMALL)) == keep


def test_an_update_that_cannot_be_put_back_keeps_no_container_waiting(
    machine: Machine, answering: Answering
) -> None:
    """It is somebody else's app too: it is not stopped."""
    machine.python('say(repr(deploy("internvl2_5-1b", wait=False)))')
    record = next(machine.home.rglob(f"{SMALL}.json"))
    key = machine.key
    record.unlink()
    machine.env = {"INTERNVL_MODAL_API_KEY": key}
    answering(lambda: None, 500)
    _, message, _ = machine.python('attempt(lambda: deploy("internvl2_5-1b", min_containers=1))')
    assert f"internvl-modal stop {SMALL} stops it" in message
    serve = app_of(machine).functions["serve"]
    assert machine.plane.functions[serve].scaling.min_containers == 0


LOST = "modal-http: internal error: function failed"


def failing(machine: Machine, times: int, begun: bool) -> list[None]:
    """The first questions are lost with containers; what is asked then is answered."""
    asked: list[None] = []

    async def handle(_: web.Request) -> web.Response:
        asked.append(None)
        if begun:
            app = app_of(machine)
            mark = f"internvl-modal {app.tags['version']}"
            machine.plane.log(app.app_id, f"{mark}: loading the weights; and more\n")
            await asyncio.sleep(7)
        if len(asked) <= times:
            return web.Response(status=500, text=LOST)
        return web.json_response({"data": [{"id": "internvl"}]})

    machine.plane.stands_in["serve"] = handle
    return asked


@pytest.mark.usefixtures("answering")
def test_an_old_container_may_end_with_the_question_that_it_holds(machine: Machine) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", wait=False)))')
    asked = failing(machine, 1, begun=False)
    assert SMALL in machine.python('say(repr(deploy("internvl2_5-1b", gpu="H100")))')
    assert len(asked) == 2


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(
    ("times", "update", "begun", "questions"),
    [(2, True, False, 2), (1, True, True, 1), (1, False, False, 1)],
)
def test_a_container_of_this_version_fails_the_deploy(
    machine: Machine, times: int, update: bool, begun: bool, questions: int
) -> None:
    """Two failures, one of a container that had begun, one where nothing ran before."""
    if update:
        machine.python('say(repr(deploy("internvl2_5-1b", wait=False)))')
    asked = failing(machine, times, begun)
    kind, message, _ = machine.python('attempt(lambda: deploy("internvl2_5-1b", gpu="H100"))')
    assert (kind, LOST in message) == ("DeployError", True)
    assert len(asked) == questions


INTERRUPTED = """
import asyncio, os, signal, threading, time
from pathlib import Path
def interrupt():
    while not Path("asked").exists():
        time.sleep(0.05)
    STOP
threading.Thread(target=interrupt, daemon=True).start()
"""


def test_ctrl_c_stops_what_was_begun(machine: Machine, answering: Answering) -> None:
    code = INTERRUPTED.replace("STOP", "os.kill(os.getpid(), signal.SIGINT)")
    with hanging(machine, answering):
        done = machine.command(sys.executable, "-c", f"{PRELUDE}{code}\ndeploy('internvl2_5-1b')")
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert f"{SMALL} is stopped" in done.stderr
    assert machine.plane.deployed(SMALL) is None


def test_a_cancelled_adeploy_stops_what_was_begun(machine: Machine, answering: Answering) -> None:
    code = (
        "import asyncio\nfrom pathlib import Path\n"
        "async def main():\n"
        '    work = asyncio.create_task(adeploy("internvl2_5-1b"))\n'
        '    while not Path("asked").exists():\n'
        "        await asyncio.sleep(0.05)\n"
        "    work.cancel()\n"
        "    try:\n"
        "        await work\n"
        "    except asyncio.CancelledError:\n"
        '        say("cancelled")\n'
        "asyncio.run(main())"
    )
    with hanging(machine, answering):
        assert machine.python(code) == "cancelled"
    assert machine.plane.deployed(SMALL) is None
