"""Updates that fail, are interrupted or meet somebody else's, with Modal's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path

import pytest
from grpclib import Status
from modal_proto import api_pb2 as p

from internvl_modal.weights import WeightsCache
from tests.deploy.conftest import Answering
from tests.deploy.machine import Machine
from tests.deploy.test_deployment import MODULE, MODULES
from tests.loopback_hub import LoopbackHub
from tests.modal_plane.plane import Fault

SMALL = "multimodal-internvl2_5-1b"
QUICK = 'deploy("internvl2_5-1b", wait=False)'
UPDATE = 'attempt(lambda: deploy("internvl2_5-1b", gpu="H100"))'

PUBLISHED = 'attempt(lambda: deploy("internvl2_5-1b", gpu="H100", proxy_auth=True))'


def gpu(machine: Machine) -> str:
    return machine.plane.function(SMALL, "serve").resources.gpu_config.gpu_type


def test_what_ran_before_is_deployed_again(machine: Machine, answering: Answering) -> None:
    machine.python(f"say(repr({QUICK}))")
    before = gpu(machine)
    answering(lambda: None, 500)
    name, message, _ = machine.python(UPDATE)
    assert name == "DeployError"
    assert "cannot start" in message
    assert f"what was deployed before ({before}) is deployed again" in message
    assert gpu(machine) == before != "H100"
    assert machine.python(f"say(connect({SMALL!r}).plan.gpu_string)") == before


def test_what_modal_deploy_made_is_deployed_again(machine: Machine, answering: Answering) -> None:
    machine.env = dict(MODULES)
    assert machine.command(*MODULE).returncode == 0
    machine.env = {}
    answering(lambda: None, 500)
    _, message, _ = machine.python(UPDATE)
    assert "what was deployed before (L4) is deployed again" in message
    assert gpu(machine) == "L4"


@pytest.mark.parametrize(
    ("token", "said"), [("wk-test\n", "no error"), ("wk-\u00e9", "INTERNVL_MODAL_MODAL_KEY")]
)
def test_a_proxy_token_is_checked_before_anything_is_published(
    machine: Machine, answering: Answering, token: str, said: str
) -> None:
    answering(lambda: None, 200)
    machine.env = {
        "INTERNVL_MODAL_MODAL_KEY": token,
        "INTERNVL_MODAL_MODAL_SECRET": "ws-test-secret\n",
    }
    assert said in str(machine.python(PUBLISHED))
    assert len(machine.plane.calls("AppPublish")) == (said == "no error")


@pytest.mark.parametrize("files", [None, ["config.json"]])
def test_only_weights_that_can_serve_are_not_downloaded_again(
    machine: Machine, answering: Answering, files: list[str] | None
) -> None:
    if files:
        volume = machine.plane.volume_path("bare")
        with LoopbackHub() as hub:
            hub.commit("OpenGVLab/InternVL2_5-1B", {"config.json": b"{}"})
            cache = WeightsCache(volume, endpoint=hub.url)
            cache.ensure("OpenGVLab/InternVL2_5-1B", files=files, progress=None)
    found = machine.python(
        "from internvl_modal.deployment.volume_weights import on_volume\n"
        f"volume = {'bare' if files else 'internvl-modal-weights'!r}\n"
        "say(on_volume(deploy('internvl2_5-1b', volume=volume, dry_run=True).spec))"
    )
    assert found == (files is None)


def test_the_commit_on_the_volume_is_pinned(machine: Machine, answering: Answering) -> None:
    """Its Python is what LMDeploy runs, whatever the branch comes to hold."""
    answering(lambda: None, 200)
    machine.python('say(repr(deploy("internvl2_5-1b")))')
    secrets = machine.plane.function(SMALL, "serve").secret_ids
    found = [machine.plane.secrets[name.removeprefix("st-")] for name in secrets]
    config = json.loads(next(filter(None, (v.get("INTERNVL_MODAL_CONTAINER") for v in found))))
    (entry,) = WeightsCache(machine.plane.volume_path("internvl-modal-weights")).list()
    assert config["revision"] == entry.commit


def test_a_stopped_app_stays_stopped(machine: Machine, answering: Answering) -> None:
    machine.python(f"say(repr({QUICK}))")

    def stop() -> None:
        for app in machine.plane.apps.values():
            app.published = False

    answering(stop, 500)
    name, message, _ = machine.python(UPDATE)
    assert (name, "deployed again" in message) == ("DeployError", False)
    assert machine.plane.deployed(SMALL) is None


def test_what_somebody_else_has_deployed_meanwhile_stays(
    machine: Machine, answering: Answering
) -> None:
    machine.python(f"say(repr({QUICK}))")

    def deploy() -> None:
        app = machine.plane.deployed(SMALL)
        assert app
        app.tags["version"] = "of-another-machine"

    answering(deploy, 500)
    name, message, _ = machine.python(UPDATE)
    assert (name, "deployed again" in message) == ("DeployError", False)
    assert gpu(machine) == "H100"


def test_what_another_machine_deployed_before_is_not_guessed(
    machine: Machine, tmp_path: Path, answering: Answering
) -> None:
    machine.python(f"say(repr({QUICK}))")
    other = Machine(machine.plane, tmp_path / "other")
    other.env = {"INTERNVL_MODAL_API_KEY": machine.key}
    other.python('say(repr(deploy("internvl2_5-1b", gpu="L4", wait=False)))')
    answering(lambda: None, 500)
    name, message, _ = machine.python(UPDATE)
    assert (name, "deployed again" in message) == ("DeployError", False)


def test_what_cannot_be_put_back(machine: Machine, answering: Answering) -> None:
    machine.python(f"say(repr({QUICK}))")
    fault = Fault(Status.RESOURCE_EXHAUSTED, "because of the test")
    answering(lambda: machine.plane.faults.update(AppPublish=fault), 500)
    _, message, _ = machine.python(UPDATE)
    assert "cannot start" in message
    assert "could not be put back" in message
    assert "because of the test" in message


def test_without_a_log_the_reason_is_still_told(machine: Machine, answering: Answering) -> None:
    answering(lambda: None, 500)
    with machine.plane.failing("AppFetchLogs", Status.INTERNAL, "no logs today"):
        _, message, _ = machine.python(UPDATE)
    assert "cannot start" in message
    assert "(no log: " in message


@pytest.mark.parametrize("key", ["-dash", "two words"])
def test_a_key_of_the_environment_that_cannot_be_served(
    machine: Machine, tmp_path: Path, key: str
) -> None:
    machine.python(f"say(repr({QUICK}))")
    other = Machine(machine.plane, tmp_path / "other")
    other.env = {"INTERNVL_MODAL_API_KEY": key}
    machine.plane.forget()
    name, message, _ = other.python(f"attempt(lambda: {QUICK})")
    assert (name, key in message) == ("ConfigError", False)
    assert not machine.plane.calls("AppPublish")


def test_an_update_that_fails_leaves_no_wrong_key(machine: Machine, tmp_path: Path) -> None:
    machine.python(f"say(repr({QUICK}))")
    other = Machine(machine.plane, tmp_path / "other")
    with machine.plane.failing("AppPublish", Status.RESOURCE_EXHAUSTED):
        other.python('attempt(lambda: deploy("internvl2_5-1b", api_key="new", wait=False))')
    other.env = {"INTERNVL_MODAL_API_KEY": machine.key}
    assert other.python("say(connect('internvl2_5-1b').api_key.get_secret_value())") == machine.key


def test_stopped_before_it_is_published(machine: Machine) -> None:
    name, message, _ = machine.python(
        "from internvl_modal.deployment.options import DeployOptions\n"
        "from internvl_modal.deployment.publish import Publication\n"
        "options = DeployOptions.load(model='internvl2_5-1b')\n"
        "work = Publication(options, None, wait=False, force=False, dry_run=False)\n"
        "work.stop.set()\n"
        "attempt(work.run)"
    )
    assert (name, "interrupted" in message) == ("DeployError", True)
    assert not machine.plane.calls("AppPublish")


def test_a_cancelled_adeploy_holds_up_nothing(machine: Machine, answering: Answering) -> None:
    """While it waits for the first answer."""

    def hang() -> Awaitable[None]:
        (machine.home / "asked").touch()
        return asyncio.sleep(600)

    answering(hang, 200)
    said = machine.python(
        "import asyncio\n"
        "from pathlib import Path\n"
        "async def main():\n"
        '    work = asyncio.create_task(adeploy("internvl2_5-1b"))\n'
        '    while not (Path("asked").exists() or work.done()):\n'
        "        await asyncio.sleep(0.05)\n"
        "    work.cancel()\n"
        "    try:\n"
        "        await work\n"
        "    except asyncio.CancelledError:\n"
        '        say("cancelled")\n'
        "asyncio.run(main())",
        timeout=100,
    )
    assert said == "cancelled"


def test_connect_finds_what_deploy_has_named(machine: Machine) -> None:
    machine.env = {
        "INTERNVL_MODAL_DEPLOY_MODEL": "internvl2_5-1b",
        "INTERNVL_MODAL_MODEL": "internvl2_5-8b",
    }
    made, found = machine.python("say([deploy(wait=False).name, connect().name])")
    assert made == found == SMALL


def test_behind_proxy_auth_without_a_token(machine: Machine) -> None:
    machine.env = {"INTERNVL_MODAL_MODAL_KEY": "wk-1", "INTERNVL_MODAL_MODAL_SECRET": "ws-1"}
    machine.python('say(repr(deploy("internvl2_5-1b", proxy_auth=True, wait=False)))')
    machine.env = {}
    name, _, hint = machine.python(f"attempt(connect({SMALL!r}).client)")
    assert (name, "INTERNVL_MODAL_MODAL_KEY" in hint) == ("ConfigError", True)
    assert machine.python(f"d = connect({SMALL!r})\nd.stop()\nsay(d.status().state)") == "stopped"


def test_a_full_app_is_stopped_first(machine: Machine) -> None:
    """None of the new version could start beside a container that takes the last place."""
    plane = machine.plane
    machine.python(f"say(repr({QUICK}))")
    assert not plane.calls("TaskList"), "there was nothing to stop"
    app = plane.deployed(SMALL)
    assert app
    plane.stats[app.functions["serve"]] = p.FunctionStats(num_total_tasks=1)
    try:
        machine.python('say(repr(deploy("internvl2_5-1b", wait=False, max_containers=2)))')
        assert not plane.calls("TaskList"), "there is room for one beside it"
        machine.python(f"say(repr({QUICK}))")
        assert plane.calls("TaskList")
    finally:
        plane.stats.clear()
