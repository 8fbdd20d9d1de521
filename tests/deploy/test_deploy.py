"""Deploying with Modal's own client, from another process, to a control plane on loopback."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import PurePosixPath
from typing import Any

import pytest
from grpclib import Status
from modal_proto import api_pb2 as p
from packaging.requirements import Requirement

from internvl_modal.deployment.container_images import EXTRAS, NOT_THERE, cpu_image, gpu_image
from internvl_modal.deployment.design import make_spec
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.planned import planned
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.engines.lmdeploy import LMDeployOptions
from internvl_modal.planning.api import plan
from internvl_modal.planning.prices import CATALOGUE_PRICES
from tests.deploy.machine import Machine
from tests.modal_plane import Plane

APP = "multimodal-internvl2_5-78b"
SMALL = "multimodal-internvl2_5-1b"
QUICK = 'deploy("internvl2_5-1b", wait=False)'


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A plane of its own, on which the default model was deployed once."""
    with Plane() as running:
        Machine(running, tmp_path_factory.mktemp("deployed")).python(
            'say(repr(deploy(wait=False, region="eu-west", max_containers=3)))'
        )
        yield running


# -- what arrives ------------------------------------------------------------------------------


def test_the_model_server(deployed: Plane) -> None:
    serve = deployed.function(APP, "serve")
    assert (serve.module_name, serve.implementation_name) == (
        "internvl_modal.deployment.containers",
        "serve",
    )
    assert serve.definition_type == p.Function.DEFINITION_TYPE_FILE
    resources = serve.resources
    assert (resources.gpu_config.gpu_type, resources.gpu_config.count) == ("A100-80GB", 4)
    assert (resources.milli_cpu, resources.memory_mb) == (8000, 32 * 1024)
    web = serve.webhook_config
    assert (web.type, web.web_server_port) == (p.WEBHOOK_TYPE_WEB_SERVER, 23333)
    assert web.web_server_startup_timeout == serve.startup_timeout_secs
    assert 20 * 60 <= serve.startup_timeout_secs <= 30 * 60
    planned = spec_of().plan.capacity
    assert serve.max_concurrent_inputs == planned.max_batch_size
    assert (serve.timeout_secs, serve.retry_policy.retries) == (900, 0)
    scaling = serve.autoscaler_settings
    assert (scaling.min_containers, scaling.max_containers, scaling.scaledown_window) == (
        0,
        3,
        spec_of().plan.idle_window,
    )
    assert list(serve.scheduler_placement.regions) == ["eu-west"]


def test_the_gateway(deployed: Plane) -> None:
    gateway = deployed.function(APP, "web_process_image")
    assert gateway.webhook_config.type == p.WEBHOOK_TYPE_ASGI_APP
    assert not gateway.resources.gpu_config.gpu_type
    assert gateway.max_concurrent_inputs == 64
    assert gateway.timeout_secs > deployed.function(APP, "serve").startup_timeout_secs
    assert not gateway.volume_mounts


def test_the_download(deployed: Plane) -> None:
    download = deployed.function(APP, "download_weights")
    assert download.function_type == p.Function.FUNCTION_TYPE_GENERATOR
    assert not download.webhook_config.type
    assert not download.resources.gpu_config.gpu_type
    assert download.timeout_secs == 24 * 3600


def test_volumes(deployed: Plane) -> None:
    mounts = {
        name: [(m.volume_id, m.mount_path, m.read_only) for m in found.volume_mounts]
        for name in ("serve", "download_weights")
        if (found := deployed.function(APP, name))
    }
    assert mounts == {
        "serve": [("vo-internvl-modal-weights", "/mnt/weights", True)],
        "download_weights": [("vo-internvl-modal-weights", "/mnt/weights", False)],
    }


def test_the_image_of_the_model_server(deployed: Plane) -> None:
    commands = deployed.image_commands(deployed.function(APP, "serve").image_id)
    told = [c for c in commands if not c.startswith("ENV TERMINFO")]
    patterns = [
        r"FROM openmmlab/lmdeploy:v0\.7\.3-cu12",
        r"COPY /python/\. /usr/local",
        r"ENV PATH=/usr/local/bin:\$PATH",
        r"ENTRYPOINT \[\]",
        r"RUN /opt/py3/bin/python -m pip install .* --no-deps timm==.*",
        r"RUN /opt/py3/bin/python -m pip install .* --no-deps 'flash-attn @ https://.*/flash_attn-.*\.whl'",
        r"COPY --from=.* /uv /\.uv/uv",
        r"RUN /\.uv/uv pip install --python \$\(command -v python\) .*httpx==.*",
    ]
    assert len(told) == len(patterns)
    for command, pattern in zip(told, patterns, strict=True):
        assert re.fullmatch(pattern, command), command


def test_the_added_python(deployed: Plane) -> None:
    assert any("3.12" in name for name in deployed.mounts), "a Python that Modal goes on to run"


def test_secrets(deployed: Plane) -> None:
    variables = {
        name: set().union(
            *(
                deployed.secrets[s.removeprefix("st-")]
                for s in deployed.function(APP, name).secret_ids
            )
        )
        for name in ("serve", "web_process_image", "download_weights")
    }
    configuration = {"INTERNVL_MODAL_CONTAINER", "INTERNVL_MODAL_WEIGHTS_ROOT"}
    assert variables == {
        "serve": configuration | {"INTERNVL_MODAL_API_KEY"},
        "web_process_image": configuration | {"INTERNVL_MODAL_API_KEY", "INTERNVL_MODAL_PRELOAD"},
        "download_weights": configuration,
    }


def test_the_package_is_mounted_whole(deployed: Plane) -> None:
    names = {file.filename for mount in deployed.mounts.values() for file in mount.files}
    package = PurePosixPath("/root", "internvl_modal")  # where Modal mounts an app's packages
    wanted = {package / "deployment" / "containers.py", package / "weights" / "cache.py"}
    wanted.add(package / "gateway" / "page" / "index.html")
    assert wanted < set(map(PurePosixPath, names))


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('gpu="H200:2"', ("H200", 2, 0, 1)),
        ('gpu="H100!:4"', ("H100!", 4, 0, 1)),
        ('gpu="4 x h100!"', ("H100!", 4, 0, 1)),
        ('gpu="A100-80GB:8", min_containers=1, max_containers=2', ("A100-80GB", 8, 1, 2)),
    ],
)
def test_gpus_and_scaling(machine: Machine, call: str, expected: tuple[str, int, int, int]) -> None:
    machine.python(f"say(repr(deploy(wait=False, {call})))")
    serve = machine.plane.function(APP, "serve")
    gpu, scaling = serve.resources.gpu_config, serve.autoscaler_settings
    found = (gpu.gpu_type, gpu.count, scaling.min_containers, scaling.max_containers)
    assert found == expected


def test_what_else_reaches_modal(machine: Machine) -> None:
    machine.python(
        'd = deploy("internvl2_5-1b", wait=False, buffer_containers=2, scaledown_window=60,\n'
        "           timeout=86400, startup_timeout=70, cpu=9.5, memory_gib=40)\nsay(repr(d))"
    )
    serve = machine.plane.function(SMALL, "serve")
    scaling, resources = serve.autoscaler_settings, serve.resources
    assert (scaling.buffer_containers, scaling.scaledown_window) == (2, 60)
    assert (resources.milli_cpu, resources.memory_mb) == (9500, 40 * 1024)
    assert (serve.timeout_secs, serve.startup_timeout_secs) == (86400, 70)
    gateway = machine.plane.function(SMALL, "web_process_image")
    assert gateway.timeout_secs == 86400, "the most that Modal takes"


def test_names_volumes_and_the_environment_variables(machine: Machine) -> None:
    machine.env = {
        "INTERNVL_MODAL_DEPLOY_VOLUME": "mine",
        "INTERNVL_MODAL_DEPLOY_DOWNLOAD_GPU": "1 x a100-80gb",
    }
    machine.python('say(repr(deploy("internvl2_5-1b", name="captions", wait=False)))')
    download = machine.plane.function("captions", "download_weights")
    assert download.volume_mounts[0].volume_id == "vo-mine"
    assert download.resources.gpu_config.gpu_type == "A100-80GB"


def test_proxy_auth(machine: Machine) -> None:
    machine.env = {"INTERNVL_MODAL_MODAL_KEY": "wk-1", "INTERNVL_MODAL_MODAL_SECRET": "ws-secret"}
    headers = machine.python(
        'd = deploy("internvl2_5-1b", wait=False, proxy_auth=True)\n'
        "say(dict(d.backend().start().headers))"
    )
    assert (headers["Modal-Key"], headers["Modal-Secret"]) == ("wk-1", "ws-secret")
    assert machine.plane.function(SMALL, "serve").webhook_config.requires_proxy_auth
    assert machine.plane.function(SMALL, "web_process_image").webhook_config.requires_proxy_auth


@pytest.mark.parametrize(
    ("workspace", "token", "expected"),
    [
        ({"HF_TOKEN": "hf_there"}, "", "hf_there"),
        ({"HF_TOKEN": "hf_there"}, "hf_here", "hf_there"),
        (None, "hf_here", "hf_here"),
        (None, "", None),
    ],
)
def test_the_hugging_face_token(
    machine: Machine, workspace: dict[str, str] | None, token: str, expected: str | None
) -> None:
    machine.env = {"HF_TOKEN": token}
    if workspace:
        machine.plane.secrets["huggingface-secret"] = workspace
    machine.python(f"say(repr({QUICK}))")
    seen = {
        name: [
            machine.plane.secrets[s.removeprefix("st-")].get("HF_TOKEN")
            for s in machine.plane.function(SMALL, name).secret_ids
        ]
        for name in ("download_weights", "serve")
    }
    assert next(filter(None, seen["download_weights"]), None) == expected
    assert not any(seen["serve"])


# -- refused before anything is sent -----------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        ('deploy(gpu="A100-80GB:1")', "PlanError", "A100-80GB:4"),
        ('deploy(gpu="A100-80GB:3")', "PlanError", "heads"),
        ('deploy(gpu="GTX")', "DeployError", "one of T4"),
        ('deploy("internvl2_5-1b", gpu="H100:4", force=True)', "ConfigError", "14 heads"),
        ('deploy(download_gpu="GTX")', "DeployError", "one of T4"),
        ('deploy("internvl9")', "DeployError", "unknown model"),
        ('deploy(name="a b")', "DeployError", "name="),
        ("deploy(max_containers=0)", "ConfigError", "max_containers"),
        ("deploy(min_containers=2)", "ConfigError", "min_containers"),
        ("deploy(gpus=2)", "ConfigError", "options:"),
        ("deploy(api_key='two words')", "ConfigError", "white space"),
        ("deploy(api_key=123)", "ConfigError", "the API key is not text"),
        ("deploy(cpu=float('inf'))", "ConfigError", "cpu"),
        ("deploy(max_batch_size=0, dry_run=True)", "ConfigError", "max_batch_size"),
        ("deploy(proxy_auth=True)", "ConfigError", "INTERNVL_MODAL_MODAL_KEY"),
    ],
)
def test_what_cannot_work_is_refused_without_a_call(
    machine: Machine, call: str, kind: str, said: str
) -> None:
    name, message, hint = machine.python(f"attempt(lambda: {call})")
    assert name == kind
    assert said in f"{message} {hint}"
    assert not [c for c in machine.plane.recorded if c.rpc.startswith(("App", "Function"))]


def test_force_deploys_with_a_warning(machine: Machine) -> None:
    (warning,) = machine.python(
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        '    warnings.simplefilter("always")\n'
        '    deploy(gpu="A100-80GB:2", force=True, wait=False)\n'
        "say([str(w.message) for w in caught])"
    )
    assert "should not work" in warning
    assert machine.plane.function(APP, "serve").resources.gpu_config.count == 2


def test_a_dry_run_says_it_all_and_calls_nobody(machine: Machine) -> None:
    text, argv, cost, names = machine.python(
        "d = deploy(dry_run=True)\n"
        "say([str(d.spec), d.spec.argv, d.spec.cost_per_hour, [f.name for f in d.spec.functions]])"
    )
    assert argv[1:3] == ["serve", "api_server"]
    assert argv[argv.index("--tp") + 1] == "4"
    assert cost == pytest.approx(10.63, abs=3)
    assert names == ["serve", "web_process_image", "download_weights"]
    for part in (
        "A100-80GB:4",
        "openmmlab/lmdeploy:v0.7.3-cu12",
        "flash-attn",
        "internvl-modal-weights at /mnt/weights",
        "huggingface-secret",
        "USD an hour",
        "\ncheapest  H200:2 by the plan: ",
    ):
        assert part in text
    assert "cheapest" not in machine.python('say(str(deploy(gpu="H200:2", dry_run=True).spec))')
    assert "A100-80GB:4" in machine.python('say(repr(deploy(" internvl2_5-78b ", dry_run=True)))')
    assert not machine.plane.recorded


def test_a_dry_run_is_nothing_to_manage(machine: Machine) -> None:
    for call in ("d.urls", "d.client()", "d.status()", "d.scale(max=2)", "d.stop()"):
        name, _, hint = machine.python(f"d = deploy(dry_run=True)\nattempt(lambda: {call})")
        assert (name, "dry_run" in hint) == ("DeployError", True)


def test_a_dry_run_is_nothing_to_manage_without_assertions(machine: Machine) -> None:
    """As ``python -O`` leaves them out."""
    machine.env = {"PYTHONOPTIMIZE": "1"}
    name, _, hint = machine.python("d = deploy(dry_run=True)\nattempt(lambda: d.stop())")
    assert (name, "dry_run" in hint) == ("DeployError", True)


# -- failures of Modal -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rpc", "status", "hint"),
    [
        ("AppGetLayout", Status.PERMISSION_DENIED, "right to do this"),
        ("EnvironmentGetOrCreate", Status.NOT_FOUND, "internvl-modal deploy"),
        ("FunctionPrecreate", Status.INVALID_ARGUMENT, "modal.com/docs"),
        ("FunctionCreate", Status.RESOURCE_EXHAUSTED, "limits"),
        ("VolumeGetOrCreate", Status.PERMISSION_DENIED, "right to do this"),
        ("SecretGetOrCreate", Status.PERMISSION_DENIED, "right to do this"),
        ("AppPublish", Status.RESOURCE_EXHAUSTED, "limits"),
        ("AppGetByDeploymentName", Status.UNAUTHENTICATED, "modal token new"),
    ],
)
def test_a_failed_deploy_leaves_the_old_one(
    machine: Machine, rpc: str, status: Status, hint: str
) -> None:
    machine.python(f"say(repr({QUICK}))")
    before = machine.plane.function(SMALL, "serve")
    with machine.plane.failing(rpc, status, "because of the test"):
        name, message, said = machine.python(
            'attempt(lambda: deploy("internvl2_5-1b", gpu="H100", wait=False))'
        )
    assert name == "DeployError"
    assert "because of the test" in message
    assert hint in said
    assert machine.plane.function(SMALL, "serve") == before


def test_an_image_that_cannot_be_built_shows_its_last_lines(machine: Machine) -> None:
    for number in range(30):
        machine.plane.log("ap-builder", f"line {number}\n")
    machine.plane.build_failure = ["No matching distribution found\n"]
    try:
        name, message, hint = machine.python(f"attempt(lambda: {QUICK})")
    finally:
        machine.plane.build_failure = []
    assert name == "DeployError"
    assert "line 29" in message
    assert "line 9\n" not in message
    assert "modal image logs im-" in hint


def test_no_credentials(machine: Machine) -> None:
    machine.env = {"MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""}
    name, _, hint = machine.python(f"attempt(lambda: {QUICK})")
    assert (name, "modal token new" in hint) == ("DeployError", True)


def test_wrong_credentials(machine: Machine) -> None:
    machine.env = {"MODAL_TOKEN_SECRET": "as-wrong"}
    name, message, hint = machine.python(f"attempt(lambda: {QUICK})")
    assert (name, "modal token new" in hint) == ("DeployError", True)
    assert "as-wrong" not in message


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("INTERNVL_MODAL_TEST_SLOW") != "1",
    reason="Modal's client tries for a minute: set INTERNVL_MODAL_TEST_SLOW=1",
)
def test_nobody_answers(machine: Machine) -> None:
    machine.env = {"MODAL_SERVER_URL": "http://127.0.0.1:9"}
    name, _, hint = machine.python(f"attempt(lambda: {QUICK})")
    assert (name, "check the network" in hint) == ("DeployError", True)


# -- the description itself --------------------------------------------------------------------


def spec_of(**options: Any) -> DeploymentSpec:
    chosen = DeployOptions(**options)
    return make_spec(chosen, planned(chosen, "catalogue"))


def test_the_images_install_what_the_package_requires_in_one_version_each() -> None:
    pins = {Requirement(pin) for pin in cpu_image().packages}
    assert cpu_image().packages == gpu_image(LMDeployOptions, flash_attention=True).packages
    assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in pins)
    versions = {pin.name.replace("_", "-"): str(pin.specifier)[2:] for pin in pins}
    assert not versions.keys() & set(NOT_THERE)
    container = [{"extra": extra, "python_version": "3.12"} for extra in ("", *EXTRAS)]
    needed = [
        need
        for need in map(Requirement, requires("internvl-modal") or [])
        if need.name not in NOT_THERE
        and (need.marker is None or any(map(need.marker.evaluate, container)))
    ]
    assert needed
    for need in needed:
        version = versions[need.name.replace("_", "-")]
        assert need.specifier.contains(version), "run tools/image_packages.py"


@pytest.mark.parametrize("gpu", ["T4", "L4"])
def test_planner_and_image_agree_about_flash_attn(gpu: str) -> None:
    """Version 2 refuses a T4 at the first picture; a plan has room for the ViT without it."""
    spec = spec_of(model="internvl2_5-1b", gpu=gpu)
    assert spec.plan.fits
    installed = any("flash_attn" in each for each in spec.function("serve").image.commands)
    assert installed == spec.plan.gpu.flash_attention == (gpu == "L4")
    scores = 2 * 13 * 16 * 1025**2 * 2  # before and after softmax, of 16 heads, in 2 bytes
    assert spec.plan.memory.vision_work > scores


def test_the_startup_timeout_grows_with_the_weights() -> None:
    models = ("internvl2_5-1b", "internvl2_5-26b", "internvl2_5-78b")
    specs = [spec_of(model=model) for model in models]
    times = [spec.function("serve").startup_timeout for spec in specs]
    assert times == sorted(set(times))
    fixed = spec_of(startup_timeout=77)
    assert fixed.function("serve").startup_timeout == 77


def test_without_a_gpu_other_models_get_the_plans_cheapest() -> None:
    spec = spec_of(model="internvl2_5-26b")
    cheapest = plan("internvl2_5-26b", prices="catalogue").gpu_string
    assert spec.function("serve").gpus == (cheapest,)


def test_the_cost_is_that_of_the_machine_asked_for() -> None:
    usual = spec_of()
    larger = spec_of(cpu=16, memory_gib=64, region="eu")
    more = 8 * CATALOGUE_PRICES.core + 32 * CATALOGUE_PRICES.gib
    assert larger.cost_per_hour == pytest.approx(usual.cost_per_hour + more)
    assert "16 cores and 64 GiB" in larger.plan.cost.assumptions[0]
    assert "surcharge" in str(larger)
    assert "surcharge" not in str(usual)


def test_every_option_is_an_argument() -> None:
    from internvl_modal.deployment.options import DeployArguments

    named = {"model", "gpu", "name"}
    assert set(DeployArguments.__annotations__) == set(DeployOptions.model_fields) - named


def test_a_spec_is_plain_data() -> None:
    spec = spec_of()
    assert spec == spec_of()
    assert json.loads(spec.container.to_environment()["INTERNVL_MODAL_CONTAINER"])["app"] == APP
