"""What a machine remembers of a deployment, against what the app's tags on Modal say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from grpclib import Status

from tests.deploy.machine import Machine
from tests.deploy.test_deployment import MODULE, MODULES, PROXY, QUICK, SMALL
from tests.loopback_hub import Fault, LoopbackHub
from tests.test_catalog import CONFIG

CUSTOM = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"0" * 3000}


@pytest.fixture
def other(machine: Machine, tmp_path: Path) -> Machine:
    """A second machine of the same workspace."""
    return Machine(machine.plane, tmp_path / "other")


def served_keys(machine: Machine) -> set[str | None]:
    """Keys that the deployed model takes."""
    secrets = machine.plane.function(SMALL, "serve").secret_ids
    found = [machine.plane.secrets[name.removeprefix("st-")] for name in secrets]
    return {variables.get("INTERNVL_MODAL_API_KEY") for variables in found}


@pytest.mark.parametrize("before", ["failed", "stopped"])
def test_a_key_of_before_is_not_taken_for_anothers(
    machine: Machine, other: Machine, before: str
) -> None:
    if before == "stopped":
        machine.python(f"{QUICK}.stop()\nsay(1)")
    else:
        with machine.plane.failing("AppPublish", Status.RESOURCE_EXHAUSTED):
            machine.python(f"attempt(lambda: {QUICK})")
    other.python(f"say(repr({QUICK}))")
    assert machine.key != other.key
    name, message, hint = machine.python(f"attempt(lambda: {QUICK})")
    assert (name, "already" in message, "api_key=" in hint) == ("DeployError", True, True)
    assert other.key in served_keys(machine)
    key = "connect('internvl2_5-1b').api_key"
    assert machine.python(f"say({key})") is None
    machine.env = {"INTERNVL_MODAL_API_KEY": other.key}
    assert machine.python(f"say({key}.get_secret_value())") == other.key


def test_what_another_machine_has_changed_is_seen(machine: Machine, other: Machine) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", gpu="L4", wait=False)))')
    other.env = PROXY | {"INTERNVL_MODAL_API_KEY": machine.key}
    other.python('say(repr(deploy("internvl2_5-1b", gpu="H200", proxy_auth=True, wait=False)))')
    machine.env = PROXY
    shown, cost, headers = machine.python(
        f"d = connect({SMALL!r})\nsay([repr(d), d.cost().per_hour, dict(d.backend().start().headers)])"
    )
    assert shown == f"<Deployment {SMALL!r} of internvl2_5-1b on H200>"
    assert cost == pytest.approx(other.python(f"say(connect({SMALL!r}).cost().per_hour)"))
    assert headers["authorization"] == f"Bearer {machine.key}"
    assert (headers["Modal-Key"], headers["Modal-Secret"]) == ("wk-1", "ws-1")


def test_the_module_follows_its_variables(machine: Machine) -> None:
    machine.env = dict(MODULES)
    assert machine.command(*MODULE).returncode == 0
    key = machine.key
    machine.env |= PROXY | {
        "INTERNVL_MODAL_DEPLOY_GPU": "H100",
        "INTERNVL_MODAL_DEPLOY_PROXY_AUTH": "1",
    }
    assert machine.command(*MODULE).returncode == 0
    machine.env = PROXY
    shown, headers = machine.python(
        f"d = connect({SMALL!r})\nsay([repr(d), sorted(d.backend().start().headers)])"
    )
    assert "on H100>" in shown
    assert headers == ["Modal-Key", "Modal-Secret", "authorization"]
    assert served_keys(machine) == {machine.key} | {None} == {key, None}


def test_the_module_replaces_no_key_of_another_machine(machine: Machine, other: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    other.env = dict(MODULES)
    done = other.command(*MODULE)
    assert done.returncode
    assert "with a key that is not on this machine" in " ".join((done.stdout + done.stderr).split())
    assert machine.key in served_keys(machine)
    assert not list(other.home.rglob("deployments/*/*/*.json"))


def test_the_module_without_modal_leaves_no_key(machine: Machine) -> None:
    machine.env = MODULES | {"MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""}
    assert machine.command(sys.executable, "-c", "import internvl_modal.modal_app").returncode
    assert not list(machine.home.rglob("deployments/*/*/*.json"))


def test_a_model_that_the_hub_has_no_more(machine: Machine, other: Machine) -> None:
    """It can still be asked from where it was deployed, and be stopped from anywhere."""
    with LoopbackHub() as hub:
        hub.commit("me/My-InternVL", CUSTOM)
        machine.env = other.env = {"HF_ENDPOINT": hub.url}
        machine.python('say(repr(deploy("me/My-InternVL", gpu="H100", wait=False)))')
        hub.faults.append(Fault("api/models", status=404, headers={"X-Error-Code": "RepoNotFound"}))
        model = machine.python("say(connect('me/My-InternVL').backend().start().model)")
        shown, state, lines = other.python(
            "d = connect('me/My-InternVL')\nd.scale(max=2)\n"
            "say([repr(d), d.status().state, list(d.logs())])"
        )
        machine.python("connect('me/My-InternVL').stop()\nsay(1)")
    assert model == "my-internvl"
    assert shown == "<Deployment 'multimodal-my-internvl' of my-internvl on H100>"
    assert (state, lines) == ("cold", [])
    assert not machine.plane.deployed("multimodal-my-internvl")


def test_a_private_model_at_a_revision(machine: Machine, other: Machine) -> None:
    """The token is that of .env; the model is on a branch only. Who has the key can ask it."""
    with LoopbackHub(token="hf_mine") as hub:
        hub.commit("me/My-InternVL", {"README.md": b"elsewhere"})
        hub.commit("me/My-InternVL", CUSTOM, branch="v1")
        machine.env = {"HF_ENDPOINT": hub.url}
        (machine.home / ".env").write_text("HF_TOKEN=hf_mine\n")
        machine.python('say(repr(deploy("me/My-InternVL", revision="v1", gpu="H100", wait=False)))')
        other.env = {"HF_ENDPOINT": hub.url, "INTERNVL_MODAL_API_KEY": machine.key}
        asked = "with connect('me/My-InternVL').client() as c: say(c.backend.start().model)"
        assert other.python(asked) == "my-internvl"
    function = machine.plane.function("multimodal-my-internvl", "download_weights")
    tokens = [
        machine.plane.secrets[name.removeprefix("st-")].get("HF_TOKEN")
        for name in function.secret_ids
    ]
    assert "hf_mine" in tokens


def test_modals_own_environment_by_its_name_too(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    call = 'deploy("internvl2_5-1b", environment="main", wait=False)'
    keys = machine.python(
        f"d, e = {call}, connect('internvl2_5-1b')\n"
        "say([d.api_key.get_secret_value(), e.api_key.get_secret_value()])"
    )
    assert keys == [machine.key, machine.key]


def test_an_environment_is_the_one_asked_for(machine: Machine) -> None:
    machine.env = {"MODAL_ENVIRONMENT": "staging"}
    machine.python(f"say(repr({QUICK}))")
    machine.env = {}
    states = machine.python(
        "d = connect('internvl2_5-1b', environment='staging')\n"
        "say([d.status().state, d.api_key is not None])"
    )
    assert states == ["cold", True]


def test_a_model_is_found_by_the_name_that_the_environment_gives(machine: Machine) -> None:
    machine.env = {"INTERNVL_MODAL_DEPLOY_NAME": "mine"}
    machine.python(f"say(repr({QUICK}))")
    assert machine.python("say(connect('internvl2_5-1b').name)") == "mine"
    name, message, _ = machine.python("attempt(lambda: connect('internvl2_5-8b'))")
    assert (name, "is not deployed" in message) == ("DeployError", True)


def test_the_name_that_the_environment_gives_comes_first(machine: Machine, other: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    other.env = {"INTERNVL_MODAL_DEPLOY_NAME": "mine"}
    other.python(f"say(repr({QUICK}))")
    assert other.python("d = connect(' InternVL2_5-1B ')\nd.stop()\nsay(d.name)") == "mine"
    assert machine.plane.deployed(SMALL)


def test_the_module_is_for_the_environment_that_modal_deploys_to(machine: Machine) -> None:
    machine.env = MODULES | {"INTERNVL_MODAL_DEPLOY_ENVIRONMENT": "staging"}
    done = machine.command(*MODULE)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode
    assert "environment='staging', but modal deploys to another one" in said
    assert not machine.plane.deployed(SMALL)
    assert machine.command(*MODULE, "--env", "staging").returncode == 0


def test_what_modal_deploy_could_not_publish_is_not_taken_for_deployed(machine: Machine) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", gpu="L40S", timeout=1234, wait=False)))')
    machine.env = dict(MODULES)
    with machine.plane.failing("AppPublish", Status.RESOURCE_EXHAUSTED):
        assert machine.command(*MODULE).returncode
    shown = "d = connect('internvl2_5-1b')\nsay([d.options.gpu, d.options.timeout])"
    assert machine.python(shown) == ["L40S", 1234]
    assert machine.command(*MODULE).returncode == 0
    assert machine.python(shown) != ["L40S", 1234]


def test_an_app_that_is_none_of_ours(machine: Machine) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", name="mine", wait=False)))')
    app = machine.plane.deployed("mine")
    assert app
    app.tags.clear()
    name, message, _ = machine.python("attempt(lambda: connect('mine').stop())")
    assert (name, "is not deployed" in message) == ("DeployError", True)
    assert machine.plane.deployed("mine")


def test_a_folder_below_the_users(machine: Machine) -> None:
    machine.env = {"INTERNVL_MODAL_STATE_DIR": "~/keys"}
    machine.python(f"say(repr({QUICK}))")
    assert list((machine.home / "keys").rglob(f"{SMALL}.json"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [(".env", b"X=\xff\n", ".env is not text in UTF-8"), ("modal.toml", b"[x\n", "modal.toml")],
)
def test_files_that_cannot_be_read(machine: Machine, name: str, content: bytes, said: str) -> None:
    (machine.home / name).write_bytes(content)
    machine.env = {"MODAL_CONFIG_PATH": str(machine.home / "modal.toml")}
    kind, message, hint = machine.python("attempt(lambda: connect('internvl2_5-1b'))")
    assert (kind, said in message) == ("ConfigError", True)
    assert hint
