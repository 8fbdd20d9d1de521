"""Keys, management and callers of deployments, with Modal's own client against a plane."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web
from grpclib import Status
from modal_proto import api_pb2 as p

from internvl_modal.deployment.containers import list_bucket
from internvl_modal.deployment.design import make_spec
from internvl_modal.deployment.modal_api import outside_loop
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.planned import planned
from internvl_modal.errors import DeployError
from tests.deploy.machine import Machine

SMALL = "multimodal-internvl2_5-1b"
AWS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
GOOGLE = ["GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET"]
PROXY = {"INTERNVL_MODAL_MODAL_KEY": "wk-1", "INTERNVL_MODAL_MODAL_SECRET": "ws-1"}
QUICK = 'deploy("internvl2_5-1b", wait=False)'


# -- keys --------------------------------------------------------------------------------------


def test_the_key_is_kept_and_told_to_nobody(machine: Machine) -> None:
    done = machine.command(
        sys.executable,
        "-c",
        f"from internvl_modal.deployment.api import *\nd = {QUICK}\nprint(repr(d), d)",
    )
    assert done.returncode == 0, done.stderr
    assert len(machine.key) >= 32
    assert machine.key not in done.stdout + done.stderr
    (file,) = machine.home.rglob("deployments/*/*/*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    deployed = [s for s in machine.plane.secrets.values() if "INTERNVL_MODAL_API_KEY" in s]
    assert {s["INTERNVL_MODAL_API_KEY"] for s in deployed} == {machine.key}
    requests = [c.request for c in machine.plane.recorded if c.rpc != "SecretGetOrCreate"]
    assert not [r for r in requests if machine.key in str(r)]


def test_a_second_deploy_updates_and_keeps_the_key(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    key = machine.key
    machine.python('say(repr(deploy("internvl2_5-1b", gpu="H100", wait=False)))')
    assert machine.key == key
    (app,) = [app for app in machine.plane.apps.values() if app.published]
    assert app.versions == 2
    assert machine.plane.function(SMALL, "serve").resources.gpu_config.gpu_type == "H100"


def test_another_machine_needs_the_key(machine: Machine, tmp_path: Path) -> None:
    machine.python(f"say(repr({QUICK}))")
    other = Machine(machine.plane, tmp_path / "other")
    for call in (QUICK, 'connect("internvl2_5-1b").client()', 'ivl.Client("modal").models()'):
        other.env = {"INTERNVL_MODAL_MODEL": "internvl2_5-1b"}
        name, _, hint = other.python(f"attempt(lambda: {call})")
        assert (name, "api_key=" in hint) == ("DeployError", True)
    urls = other.python(f'say(dict(connect("internvl2_5-1b", api_key={machine.key!r}).urls))')
    assert urls == machine.python('say(dict(connect("internvl2_5-1b").urls))')
    other.env = {"INTERNVL_MODAL_API_KEY": machine.key}
    other.python(f"say(repr({QUICK}))")
    assert other.key == machine.key
    other.python('say(repr(deploy("internvl2_5-1b", api_key="new", wait=False)))')
    assert other.key == "new"


def test_without_its_key_a_deployment_can_still_be_stopped(
    machine: Machine, tmp_path: Path
) -> None:
    machine.python(f"say(repr({QUICK}))")
    other = Machine(machine.plane, tmp_path / "other")
    state = other.python(
        "d = connect('internvl2_5-1b')\nd.scale(max=2)\nd.stop()\nsay(d.status().state)"
    )
    assert state == "stopped"


def test_a_key_around_which_there_is_white_space(machine: Machine) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", api_key="mine\\n", wait=False)))')
    assert machine.key == "mine"
    found = machine.python(
        "d = connect('internvl2_5-1b', api_key=' mine\\n')\nsay(dict(d.backend().start().headers))"
    )
    assert found["authorization"] == "Bearer mine"


def test_environments_do_not_share_keys(machine: Machine) -> None:
    for environment in ("staging", "prod"):
        machine.env = {"MODAL_ENVIRONMENT": environment}
        machine.python(f"say(repr({QUICK}))")
    keys = {
        environment: machine.python(
            f"d = connect('internvl2_5-1b', environment={environment!r})\n"
            "say(d.api_key.get_secret_value())"
        )
        for environment in ("staging", "prod")
    }
    assert keys["staging"] != keys["prod"]


def test_a_folder_that_cannot_keep_the_key(machine: Machine) -> None:
    machine.env = {"INTERNVL_MODAL_STATE_DIR": "/dev/null"}
    name, message, hint = machine.python(f"attempt(lambda: {QUICK})")
    assert (name, "/dev/null" in message) == ("DeployError", True)
    assert "INTERNVL_MODAL_STATE_DIR" in hint
    assert not machine.plane.calls("AppPublish")


def test_a_damaged_record_says_so(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    (file,) = machine.home.rglob("deployments/*/*/*.json")
    file.write_text("{")
    name, message, hint = machine.python('attempt(lambda: connect("internvl2_5-1b"))')
    assert (name, str(file) in message, "api_key=" in hint) == ("DeployError", True, True)


# -- managing ----------------------------------------------------------------------------------


def test_scaling_and_status(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    app = machine.plane.deployed(SMALL)
    assert app
    serve = app.functions["serve"]
    cold, costs = machine.python(
        f"d = connect({SMALL!r})\n"
        "first = d.status()\n"
        "d.scale(min=1, max=4)\n"
        "say([[first.state, first.containers], d.cost().per_hour > 0])"
    )
    assert cold == ["cold", 0]
    assert costs
    scaling = machine.plane.functions[serve].scaling
    assert (scaling.min_containers, scaling.max_containers) == (1, 4)
    kinds = [p.FunctionStats(num_total_tasks=n, backlog=w) for n, w in ((0, 1), (1, 1), (1, 0))]
    machine.plane.stats[serve] = p.FunctionStats(num_total_tasks=2, num_running_inputs=5, backlog=7)
    ready = machine.python(f"say(vars(connect({SMALL!r}).status()))")
    assert ready == {"state": "ready", "containers": 2, "running": 5, "waiting": 7}
    states = []
    for machine.plane.stats[serve] in kinds:
        states.append(machine.python(f"say(connect({SMALL!r}).status().state)"))
    assert states == ["starting", "starting", "ready"]


def test_status_sends_nothing_to_the_server(machine: Machine) -> None:
    """Each request would keep its GPUs for another idle window."""
    machine.env = PROXY
    machine.python('say(repr(deploy("internvl2_5-1b", proxy_auth=True, wait=False)))')
    app = machine.plane.deployed(SMALL)
    assert app
    machine.plane.stats[app.functions["serve"]] = p.FunctionStats(num_total_tasks=1)
    machine.env = {}
    asked: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request)
        return web.Response()

    machine.plane.stands_in["serve"] = answer
    try:
        assert machine.python(f"say(connect({SMALL!r}).status().state)") == "ready"
    finally:
        machine.plane.stands_in.clear()
    assert not asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [("", "changes nothing"), ("min=5, max=2", "max = 2"), ("max=0", "max = 0"), ("min=-1", "-1")],
)
def test_no_numbers_of_containers(machine: Machine, arguments: str, said: str) -> None:
    machine.python(f"say(repr({QUICK}))")
    name, message, _ = machine.python(f"attempt(lambda: connect({SMALL!r}).scale({arguments}))")
    assert (name, said in message) == ("ConfigError", True)
    assert not machine.plane.calls("FunctionUpdateSchedulingParams")


def test_logs(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    app = machine.plane.deployed(SMALL)
    assert app
    for number in range(5):
        machine.plane.log(app.app_id, f"line {number}\n")
    assert machine.python(f"say(list(connect({SMALL!r}).logs(tail=2)))") == ["line 3", "line 4"]
    assert machine.python(f"say(list(connect({SMALL!r}).logs(tail=0)))") == []
    said = machine.python(f"attempt(lambda: list(connect({SMALL!r}).logs(tail=-3)))")
    assert said[:2] == ["ConfigError", "tail = -3: it must be at least 0"]
    followed = machine.python(
        f"logs = connect({SMALL!r}).logs(tail=1, follow=True)\n"
        "first = next(logs)\n"
        f"connect({SMALL!r}).stop()\n"
        "say([first, list(logs)])"
    )
    assert followed == ["line 4", []]


def test_new_lines_of_a_log(machine: Machine) -> None:
    """One comes every 50 ms from when the stream is asked for: the stream begins at some of them."""
    machine.python(f"say(repr({QUICK}))")
    plane, app = machine.plane, machine.plane.deployed(SMALL)
    assert app
    plane.log(app.app_id, "old\n")
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.05):
            if plane.calls("AppGetLogs"):
                plane.log(app.app_id, "new\n")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(go_on)
        try:
            lines = machine.python(
                f"logs = connect({SMALL!r}).logs(tail=1, follow=True)\nsay([next(logs), next(logs)])"
            )
        finally:
            ended.set()
    assert lines == ["old", "new"]


@pytest.mark.parametrize(
    ("source", "secret", "prefix", "kind", "endpoint", "keys"),
    [
        ("s3://shop", None, "", "S3", "", []),
        ("s3://shop/a/b/", "mine", "a/b/", "S3", "", AWS),
        ("gs://shop/a", "mine", "a/", "GCP", "https://storage.googleapis.com", GOOGLE),
    ],
)
def test_the_bucket_of_a_batch_is_mounted_to_be_read(
    machine: Machine,
    source: str,
    secret: str | None,
    prefix: str,
    kind: str,
    endpoint: str,
    keys: list[str],
) -> None:
    machine.python(f"say(repr({QUICK}))")
    machine.plane.secrets["mine"] = dict.fromkeys(keys, "value")
    with machine.plane.failing("FunctionMap", Status.PERMISSION_DENIED, "not you"):
        said = machine.python(
            f"attempt(lambda: connect({SMALL!r}).map({source!r}, 'out', bucket_secret={secret!r}))"
        )
    assert said[:2] == ["DeployError", f"describing {source}: not you"]
    function = machine.plane.calls("FunctionCreate")[-1].function
    assert list(function.cloud_bucket_mounts) == [
        p.CloudBucketMount(
            bucket_name="shop",
            mount_path="/mnt/bucket",
            credentials_secret_id=f"st-{secret}" if secret else "",
            read_only=True,
            bucket_type=kind,
            bucket_endpoint_url=endpoint or None,
            key_prefix=prefix or None,
        )
    ]
    asked = [list(call.required_keys) for call in machine.plane.calls("SecretGetOrCreate")]
    assert not keys or keys in asked
    assert "st-mine" not in function.secret_ids


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "'s3://shop/a', 'out', bucket_secret='absent'",
            ["DeployError", "Modal has no Secret 'absent'", f"absent {AWS[0]}=... {AWS[1]}=..."],
        ),
        (
            "'photos', 'out', bucket_secret='absent'",
            ["ConfigError", "'photos' is on a Volume", "leave out bucket_secret"],
        ),
        (
            "'https://shop/a', 'out'",
            ["ConfigError", "'https://shop/a' names no bucket", "s3://BUCKET/FOLDER or gs://"],
        ),
        ("'s3://', 'out'", ["ConfigError", "'s3://' names no bucket", "give s3://BUCKET/FOLDER"]),
    ],
)
def test_a_bucket_that_cannot_be_had(machine: Machine, call: str, said: list[str]) -> None:
    machine.python(f"say(repr({QUICK}))")
    *what, hint = machine.python(f"attempt(lambda: connect({SMALL!r}).map({call}))")
    assert what == said[:2]
    assert said[2] in hint


def test_a_bucket_that_cannot_be_read_is_not_an_empty_one() -> None:
    with pytest.raises(DeployError, match=r"cannot be read: .*'/mnt/bucket'"):
        list_bucket()


def test_stop_and_what_it_leaves(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    key = machine.key
    state = machine.python(f"d = connect({SMALL!r})\nd.stop()\nsay(d.status().state)")
    assert state == "stopped"
    name, _, hint = machine.python(f"attempt(lambda: connect({SMALL!r}))")
    assert (name, "deploy" in hint) == ("DeployError", True)
    machine.python(f"say(repr({QUICK}))")
    assert machine.key == key


def test_openai_client(machine: Machine) -> None:
    machine.env = PROXY
    base_url, key, sent = machine.python(
        'o = deploy("internvl2_5-1b", proxy_auth=True, wait=False).openai()\n'
        "sent = {name: o.default_headers.get(name) for name in ('Modal-Key', 'Modal-Secret')}\n"
        "say([str(o.base_url), o.api_key, sent])"
    )
    assert base_url.endswith("/v1/")
    assert key == machine.key
    assert sent == {"Modal-Key": "wk-1", "Modal-Secret": "ws-1"}


# -- where it is called from -------------------------------------------------------------------


def test_inside_a_running_loop_without_a_warning(machine: Machine) -> None:
    assert machine.python(
        "import asyncio\n"
        "async def main():\n"
        f"    d = {QUICK}\n"
        '    e = await adeploy("internvl2_5-1b", wait=False)\n'
        "    list(d.logs())\n"
        "    d.client(); d.openai(); d.scale(max=2)\n"
        "    say([d.status().state, dict(d.urls) == dict(e.urls)])\n"
        "    d.stop()\n"
        "asyncio.run(main())"
    ) == ["cold", True]


def read_all(terminal: int) -> str:
    """What is written to the other side of a terminal until that is closed."""
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    return shown.decode()


@pytest.mark.parametrize("terminal", [True, False])
def test_modals_own_output_is_shown_on_a_terminal(machine: Machine, terminal: bool) -> None:
    ours, theirs = pty.openpty()
    code = f"from internvl_modal.deployment.api import deploy; {QUICK}"
    environment = {n: value for n, value in machine.environment.items() if value}
    with ThreadPoolExecutor(1) as pool:
        shown_later = pool.submit(read_all, ours)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"TERM": "xterm", "COLUMNS": "100"},
            cwd=machine.home,
            check=False,
            timeout=120,
            stdout=theirs,
            stderr=theirs if terminal else subprocess.PIPE,
        )
        os.close(theirs)
        shown = shown_later.result()
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert ("App deployed" in shown) == terminal
    assert machine.key not in shown


@pytest.mark.parametrize("watched", [False, True])
def test_from_threads(machine: Machine, watched: bool) -> None:
    """On a terminal too, where Modal draws the progress of one deploy and not of several."""
    names = machine.python(
        "import io\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "class Terminal(io.StringIO):\n"
        f"    isatty = lambda self: {watched}\n"
        "sys.stderr = Terminal()\n"
        "from modal.output import OutputManager\n"
        "with ThreadPoolExecutor(3) as pool:\n"
        '    made = pool.map(lambda n: deploy("internvl2_5-1b", name=n, wait=False), "abc")\n'
        "    made = [d.name for d in made]\n"
        "say(made + [OutputManager.get().is_enabled])"
    )
    assert names == ["a", "b", "c", False]
    assert all(machine.plane.deployed(name) for name in "abc")


MODULE = [sys.executable, "-m", "modal", "deploy", "-m", "internvl_modal.modal_app"]
MODULES = {
    "INTERNVL_MODAL_DEPLOY_MODEL": "internvl2_5-1b",
    "INTERNVL_MODAL_DEPLOY_GPU": "L4",
    "PYTHONWARNINGS": "",
}


def test_modal_deploy_of_the_module(machine: Machine) -> None:
    machine.env = dict(MODULES)
    command = MODULE
    done = machine.command(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.key not in done.stdout + done.stderr
    assert machine.plane.function(SMALL, "serve").resources.gpu_config.gpu_type == "L4"
    assert machine.python(f"say(connect({SMALL!r}).name)") == SMALL
    key = machine.key
    machine.env["INTERNVL_MODAL_API_KEY"] = "of-another-server"
    assert machine.command(*command).returncode == 0
    assert machine.key == key


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"INTERNVL_MODAL_DEPLOY_GPU": "T4", "INTERNVL_MODAL_DEPLOY_MODEL": "internvl2_5-78b"},
            "PlanError: internvl2_5-78b does not fit",
        ),
        ({"INTERNVL_MODAL_DEPLOY_GPU": "GTX"}, "unknown GPU 'GTX'"),
        ({"MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""}, "run `modal token new`"),
    ],
)
def test_an_error_of_the_module_is_short(
    machine: Machine, variables: dict[str, str], said: str
) -> None:
    machine.env = MODULES | variables
    done = machine.command(*MODULE)
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert said in told
    assert told.count("modal token new") <= 1
    assert len((done.stdout + done.stderr).splitlines()) <= 25
    assert "modal_api.py" not in told


def test_as_a_backend_of_the_client(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    url, model, plain = machine.python(
        "with ivl.Client('modal', model='internvl2_5-1b') as client:\n"
        "    endpoint = client.backend.start()\n"
        "    say([endpoint.base_url, endpoint.model, repr(client) + repr(endpoint)])"
    )
    assert (url, model) == (
        machine.python(f"say(connect({SMALL!r}).urls['openai'])"),
        "internvl2_5-1b",
    )
    assert machine.key not in plain


def test_a_backend_of_the_client_has_the_deployments_key_and_patience(machine: Machine) -> None:
    machine.python(f"say(repr({QUICK}))")
    machine.env = {"INTERNVL_MODAL_API_KEY": "of-another-server"}
    sent, given, patience = machine.python(
        "made = [ivl.Client('modal', model='internvl2_5-1b', api_key=k) for k in (None, 'given')]\n"
        "keys = [c.backend.start().headers['authorization'] for c in made]\n"
        "say([*keys, made[0].backend.preview().timeout])"
    )
    assert (sent, given) == (f"Bearer {machine.key}", "Bearer given")
    options = DeployOptions(model="internvl2_5-1b")
    start = make_spec(options, planned(options)).function("serve").startup_timeout
    assert patience == start + options.timeout


def test_a_name_of_ones_own_from_another_machine(machine: Machine, tmp_path: Path) -> None:
    machine.python('say(repr(deploy("internvl2_5-8b", name="mine", gpu="H100:2", wait=False)))')
    other = Machine(machine.plane, tmp_path / "other")
    found = other.python("say(repr(connect('mine', api_key='k')))")
    assert found == "<Deployment 'mine' of internvl2_5-8b on H100:2>"


def test_nothing_of_that_name(machine: Machine) -> None:
    for name in ("internvl2_5-1b", "OpenGVLab/InternVL2_5-1B", "mine"):
        kind, message, _ = machine.python(f"attempt(lambda: connect({name!r}))")
        assert (kind, "is not deployed" in message) == ("DeployError", True)


def test_in_an_environment(machine: Machine) -> None:
    machine.python('say(repr(deploy("internvl2_5-1b", environment="staging", wait=False)))')
    for rpc in ("AppCreate", "AppGetByDeploymentName", "VolumeGetOrCreate"):
        assert {r.environment_name for r in machine.plane.calls(rpc)} == {"staging"}
    machine.plane.forget()
    machine.python(
        'd = connect("internvl2_5-1b", environment="staging")\n'
        "say([d.status().state, dict(d.urls)])"
    )
    for rpc in ("AppGetOrCreate", "FunctionGet"):
        assert {r.environment_name for r in machine.plane.calls(rpc)} == {"staging"}


def test_connect_reads_the_variables_that_deploy_reads(machine: Machine) -> None:
    machine.env = {
        "INTERNVL_MODAL_DEPLOY_ENVIRONMENT": "staging",
        "INTERNVL_MODAL_DEPLOY_MODEL": "internvl2_5-1b",
        "INTERNVL_MODAL_DEPLOY_NAME": "mine",
    }
    machine.python("say(repr(deploy(wait=False)))")
    assert machine.python("d = connect()\nsay([d.name, d.spec.environment])") == ["mine", "staging"]


def test_what_is_deployed_is_not_what_the_environment_says_now(machine: Machine) -> None:
    deployed = machine.python(f"say({QUICK}.plan.gpu_string)")
    machine.env = {"INTERNVL_MODAL_DEPLOY_GPU": "H100"}
    assert machine.python("say(connect('internvl2_5-1b').plan.gpu_string)") == deployed != "H100"


def test_behind_proxy_auth_from_another_machine(machine: Machine, tmp_path: Path) -> None:
    machine.env = PROXY
    machine.python('say(repr(deploy("internvl2_5-1b", proxy_auth=True, wait=False)))')
    other = Machine(machine.plane, tmp_path / "other")
    other.env = PROXY
    headers = other.python(
        "d = connect('internvl2_5-1b', api_key='k')\nsay(dict(d.backend().start().headers))"
    )
    assert (headers["Modal-Key"], headers["Modal-Secret"]) == ("wk-1", "ws-1")


def test_an_interrupt_is_not_held_back_by_what_runs_beside_a_loop() -> None:
    stop, ended = threading.Event(), threading.Event()
    main_thread = threading.main_thread().ident
    assert main_thread

    def work() -> None:
        stop.wait(0.2)
        signal.pthread_kill(main_thread, signal.SIGINT)
        stop.wait(60)
        ended.set()

    async def main() -> None:
        outside_loop(work, stop)

    loop = asyncio.new_event_loop()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main())
    assert stop.is_set()
    assert ended.wait(60)
    loop.close()
