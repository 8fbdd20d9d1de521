"""What Modal, LMDeploy or the Hub would refuse later is refused before anything is asked of them."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest
from grpclib import Status
from modal._utils import name_utils

from internvl_modal.deployment.container_config import CONFIG as CONFIG_OF_CONTAINER
from internvl_modal.deployment.containers import engine_environment
from internvl_modal.deployment.modal_rules import APP_ID, ENVIRONMENT, OBJECT
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.errors import ConfigError
from tests.deploy.machine import REPOSITORY, Machine
from tests.deploy.test_deployment import QUICK, SMALL
from tests.loopback_hub import LoopbackHub
from tests.modal_plane import Plane
from tests.test_catalog import CONFIG

ID = "ap-" + "x" * 22


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", "a b"),
        ("name", "a\n"),
        ("name", ID),
        ("name", "a" * 65),
        ("name", "../a"),
        ("volume", "my weights"),
        ("volume", ID),
        ("environment", "../prod"),
        ("environment", "en-1"),
        ("environment", "-prod"),
        ("region", "mars 1"),
        ("region", "mars"),
        ("region", "us-east\n"),
        ("gpu", "A10:8"),
        ("gpu", "H100:99"),
        ("download_gpu", "H100:99"),
        ("download_gpu", "H100:0"),
    ],
)
def test_by_modals_own_rules(machine: Machine, option: str, value: str) -> None:
    call = f"deploy('internvl2_5-1b', wait=False, force=True, **{ {option: value}!r})"
    name, message, hint = machine.python(f"attempt(lambda: {call})")
    assert name == "DeployError"
    assert f"{option}={value!r}" in message
    assert hint
    assert not machine.plane.recorded


@pytest.mark.parametrize("value", ["a", "a" * 64, "a-b_c.d", "a" * 65, "a b", "a/b", "", ID])
def test_the_rules_are_those_of_modals_client(value: str) -> None:
    ours = bool(OBJECT.fullmatch(value)) and not APP_ID.fullmatch(value)
    assert ours == name_utils.is_valid_object_name(value)
    theirs = name_utils.is_valid_environment_name(value, allow_periods=True)
    assert bool(ENVIRONMENT.fullmatch(value)) == theirs


def test_connect_in_no_environment(machine: Machine) -> None:
    said = machine.python("attempt(lambda: connect('m', environment='../prod'))")
    assert said[:2] == ["DeployError", "environment='../prod' cannot be an environment of Modal"]
    assert not machine.plane.recorded


# -- other errors of Modal's client ------------------------------------------------------------


def test_a_package_in_a_zip(machine: Machine) -> None:
    """Python runs it, Modal cannot mount it."""
    archive = machine.home / "internvl.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (REPOSITORY / "internvl_modal").rglob("*"):
            if path.suffix in (".py", ".txt"):
                file.write(path, path.relative_to(REPOSITORY))
    machine.env = {"PYTHONPATH": str(archive)}
    kind, _, hint = machine.python(f"attempt(lambda: {QUICK})")
    assert kind == "DeployError"
    assert "zip" in hint
    assert not machine.plane.deployed(SMALL)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_every_error_of_modals_is_ours(machine: Machine, status: Status) -> None:
    with machine.plane.failing("AppPublish", status, "because of the test"):
        kind, message, hint = machine.python(f"attempt(lambda: {QUICK})", timeout=200)
    assert (kind, bool(hint)) == ("DeployError", True)
    assert message.startswith(f"deploying {SMALL}: ")


# -- keys and workspaces -----------------------------------------------------------------------


def test_a_key_stays_in_its_workspace(machine: Machine, tmp_path: Path) -> None:
    machine.python(f"say(repr({QUICK}))")
    first = machine.key
    with Plane() as another:
        another.workspace = "somebody-else"
        there = Machine(another, machine.home)
        keys = there.python(f"say([{QUICK}.api_key.get_secret_value()])")
    assert keys != [first]
    assert machine.python(f"say(connect({SMALL!r}).api_key.get_secret_value())") == first


def test_a_workspace_without_a_name_is_told_by_its_token(machine: Machine) -> None:
    with machine.plane.failing("WorkspaceNameLookup", Status.UNIMPLEMENTED):
        machine.python(f"say(repr({QUICK}))")
    assert list(machine.home.rglob("deployments/ak-test/main/*.json"))


# -- the engine --------------------------------------------------------------------------------


def test_the_engine_has_the_images_environment_and_none_of_modals() -> None:
    container = {
        "NCCL_LAUNCH_MODE": "GROUP",
        "TRITON_PTXAS_PATH": "/usr/local/cuda/bin/ptxas",
        "LD_LIBRARY_PATH": "/opt/lmdeploy/install/lib",
        "PATH": "/usr/local/bin:/opt/py3/bin:/usr/bin",
        "PYTHONPATH": "/root",
        "MODAL_TASK_ID": "ta-1",
        "INTERNVL_MODAL_API_KEY": "secret",
        "INTERNVL_MODAL_MODAL_SECRET": "secret",
    }
    found = engine_environment(container, {"NCCL_DEBUG": "INFO"})
    assert found == {
        "NCCL_LAUNCH_MODE": "GROUP",
        "TRITON_PTXAS_PATH": "/usr/local/cuda/bin/ptxas",
        "LD_LIBRARY_PATH": "/opt/lmdeploy/install/lib",
        "NCCL_DEBUG": "INFO",
        "PATH": "/opt/py3/bin:/usr/local/bin:/opt/py3/bin:/usr/bin",
        "HF_HUB_OFFLINE": "1",
    }


def test_more_for_the_engine_is_shown_and_reaches_the_container(machine: Machine) -> None:
    more = "env={'NCCL_DEBUG': 'INFO', 'MY_TOKEN': 's3cret'}, engine_args=['--dtype', 'float16']"
    text = machine.python(f"say(str(deploy('internvl2_5-1b', {more}, dry_run=True).spec))")
    assert "--dtype float16" in text
    assert "NCCL_DEBUG=INFO" in text
    assert "s3cret" not in text
    machine.python(f"say(repr(deploy('internvl2_5-1b', {more}, wait=False)))")
    secrets = machine.plane.function(SMALL, "serve").secret_ids
    found = [machine.plane.secrets[name.removeprefix("st-")] for name in secrets]
    config = json.loads(next(filter(None, (v.get("INTERNVL_MODAL_CONTAINER") for v in found))))
    assert config["env"] == {"NCCL_DEBUG": "INFO", "MY_TOKEN": "s3cret"}
    assert config["engine_args"] == ["--dtype", "float16"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("env", {"A B": "1"}, "'A B' is no variable"),
        ("env", {"PATH": "/"}, "PATH is set for the engine already"),
        ("env", {"MODAL_TASK_ID": "1"}, "MODAL_TASK_ID is set"),
        ("env", "NAME", "give NAME=VALUE"),
        ("liveness", -1, "liveness"),
    ],
)
def test_variables_that_are_none(option: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DeployOptions.load(**{option: value})


def test_in_the_words_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVL_MODAL_DEPLOY_ENV", "A=1 B='2 3'")
    monkeypatch.setenv("INTERNVL_MODAL_DEPLOY_ENGINE_ARGS", "--dtype float16")
    options = DeployOptions.load()
    assert options.env == {"A": "1", "B": "2 3"}
    assert options.engine_args == ("--dtype", "float16")


def test_engine_args_that_are_none(machine: Machine) -> None:
    said = machine.python("attempt(lambda: deploy(engine_args=['--tp', '2'], dry_run=True))")
    assert said[:2] == ["ConfigError", "engine_args: --tp has a place of its own"]


# -- the Hub -----------------------------------------------------------------------------------


def test_the_container_asks_the_same_hub(machine: Machine) -> None:
    machine.env = {
        "HF_TOKEN": "hf_mine",
        "HF_ENDPOINT": "https://mirror.example",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/somewhere/here",
    }
    machine.python(f"say(repr({QUICK}))")
    secrets = machine.plane.function(SMALL, "download_weights").secret_ids
    found: dict[str, str] = {}
    for name in secrets:
        found |= machine.plane.secrets[name.removeprefix("st-")]
    assert found["HF_TOKEN"] == "hf_mine"
    assert found["HF_ENDPOINT"] == "https://mirror.example"
    assert found["HF_HUB_DISABLE_XET"] == "1"
    assert not {"HF_HOME", "HF_HUB_OFFLINE"} & set(found)
    assert found["INTERNVL_MODAL_HUB_LOGIN_SOURCE"] == (
        "the variable HF_TOKEN on the machine that deployed"
    )


CODE = "OpenGVLab/InternVL2_5-8B--configuration_internvl_chat.InternVLChatConfig"


@pytest.mark.parametrize(
    ("file", "auto_map"),
    [
        ("config.json", {"AutoModel": "there.Model", "AutoConfig": CODE}),
        ("tokenizer_config.json", {"AutoTokenizer": [CODE, None]}),
        ("preprocessor_config.json", {"AutoImageProcessor": CODE}),
    ],
)
def test_code_in_another_repository(
    machine: Machine, file: str, auto_map: dict[str, object]
) -> None:
    """As ``save_pretrained`` writes it after a fine-tuning."""
    documents = {"config.json": CONFIG}
    documents[file] = {**documents.get(file, {}), "auto_map": auto_map}
    files = {name: json.dumps(document).encode() for name, document in documents.items()}
    with LoopbackHub() as hub:
        hub.commit("me/Tuned", {**files, "model.safetensors": b"0" * 3000})
        machine.env = {"HF_ENDPOINT": hub.url}
        kind, message, hint = machine.python("attempt(lambda: deploy('me/Tuned', gpu='H100'))")
    assert (kind, "OpenGVLab/InternVL2_5-8B" in message) == ("PlanError", True)
    assert f"its {file} takes" in message
    assert "configuration_internvl_chat.py" in hint
    assert not machine.plane.recorded
    assert not hub.downloads("safetensors")


REVISION = "deploy('internvl2_5-1b', revision={!r}, wait=False)"


def pinned(machine: Machine) -> str | None:
    """The revision that the containers of the deployment are told."""
    found: dict[str, str] = {}
    for name in machine.plane.function(SMALL, "serve").secret_ids:
        found |= machine.plane.secrets[name.removeprefix("st-")]
    return json.loads(found[CONFIG_OF_CONTAINER])["revision"]  # type: ignore[no-any-return]


def test_a_deploy_that_does_not_wait_pins_the_commit_of_the_hub(machine: Machine) -> None:
    with LoopbackHub() as hub:
        commit = hub.commit("OpenGVLab/InternVL2_5-1B", {"config.json": b"{}"}, branch="v1")
        machine.env = {"HF_ENDPOINT": hub.url}
        machine.python(f"say(repr({REVISION.format('v1')}))")
        asked = len(hub.requests)
        assert pinned(machine) == commit
        said = machine.python(f"attempt(lambda: {REVISION.format('v2')})")
    assert (said[0], "there is no revision v2" in said[1]) == ("WeightsError", True)
    assert pinned(machine) == commit
    assert asked


def test_modal_deploy_pins_the_commit_of_the_hub(machine: Machine) -> None:
    command = [sys.executable, "-m", "modal", "deploy", "-m", "internvl_modal.modal_app"]
    with LoopbackHub() as hub:
        commit = hub.commit("OpenGVLab/InternVL2_5-1B", {"config.json": b"{}"}, branch="main")
        machine.env = {
            "HF_ENDPOINT": hub.url,
            "INTERNVL_MODAL_DEPLOY_MODEL": "internvl2_5-1b",
            "PYTHONWARNINGS": "",
        }
        done = machine.command(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert pinned(machine) == commit
        machine.env["INTERNVL_MODAL_DEPLOY_REVISION"] = "v2"
        done = machine.command(*command)
    assert done.returncode != 0
    assert "there is no revision v2" in done.stdout + done.stderr
    assert pinned(machine) == commit


def test_a_deploy_that_does_not_wait_and_no_hub(machine: Machine) -> None:
    """It is said, and the deployment is made: Modal may reach the Hub where this machine cannot."""
    machine.env = {"HF_ENDPOINT": "http://127.0.0.1:1", "PYTHONWARNINGS": ""}
    call = f"from internvl_modal.deployment.api import deploy\n{REVISION.format('v1')}"
    done = machine.command(sys.executable, "-c", call)
    assert done.returncode == 0
    assert "no commit is pinned, for the connection to http://127.0.0.1:1 failed" in done.stderr
    assert pinned(machine) == "v1"
