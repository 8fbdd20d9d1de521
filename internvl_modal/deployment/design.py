"""What a deployment is made of, as plain data: nothing here talks to Modal.

``make_spec`` decides everything; ``modal_build`` builds exactly that.

Pure, so that a dry run shows what a deploy makes, and tests compare specs instead of watching
calls. Numbers that are not options are decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from internvl_modal.deployment import container_config
from internvl_modal.deployment.container_config import MOUNT, PORT, PRELOAD, ContainerConfig
from internvl_modal.deployment.container_images import cpu_image, gpu_image
from internvl_modal.deployment.modal_rules import check_name
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.spec import HUB, HUGGING_FACE, DeploymentSpec, FunctionSpec, WebSpec
from internvl_modal.engines.registry import engine_of
from internvl_modal.planning.gpus import parse_gpu
from internvl_modal.planning.plan import Plan

MOST_TILES = 41
"""Of a picture, its thumbnail among them, as ``images.tiles`` has it, which reads pictures."""
GATEWAY_CONCURRENCY = 64
"""Requests in one gateway container; they wait for the GPU most of the time.

Twice what an engine answers at once where that is less: more, the gateway would refuse."""
SLOWEST_READ = 150e6
"""Bytes a second: a tenth of what a Volume usually gives.

The start-up timeout is reckoned with it: too short a timeout kills a container in the middle of
loading, again and again.
"""
BOOT = 600
"""Seconds for the container, CUDA and the first picture, however small the model."""
DAY = 24 * 3600
"""Most seconds that Modal lets a call run."""


def make_spec(options: DeployOptions, plans: Sequence[Plan]) -> DeploymentSpec:
    """Decide all of a deployment of what was planned, a plan for each choice of GPUs in order.

    Raises ConfigError for what the engine itself would refuse, DeployError for what Modal would.

    Pure, given the plans. The same options give an equal spec, whatever is deployed already.
    """
    planned = dearest(plans)
    engine = engine_of(planned.engine)
    for plan in plans:
        engine.parse(**plan.settings)
    engine.check_arguments(options.engine_args)
    app = options.name or f"multimodal-{planned.spec.name}"
    check_name("name", app)
    startup_timeout = _startup_timeout(options, planned)
    # Options that were left open are written down as what was chosen: prices change, and a
    # deployment that is made again must be the same one.
    chosen = {  # with it the deployment can be found and managed, or made again
        "name": app,
        "model": planned.spec.repo,
        "gpu": ",".join(_gpus(options, plans)),
        "engine": planned.engine,
        "scaledown_window": planned.idle_window,
        "startup_timeout": startup_timeout,
    }
    options = options.model_copy(update=chosen)
    container = ContainerConfig(
        app=app,
        environment=options.environment,
        model=planned.spec.repo,
        revision=options.revision,
        served=planned.spec.name,
        volume=options.volume,
        engine=planned.engine,
        machines=tuple(_machine(plan) for plan in plans),
        startup_timeout=startup_timeout,
        engine_args=options.engine_args,
        env=options.env,
        liveness=options.liveness,
        sessions=planned.capacity.sessions,
        startup=planned.startup_seconds,
        picture_usd=tuple(planned.picture_cost(tiles) for tiles in range(1, MOST_TILES + 1)),
    )
    functions = (
        _serve(options, plans, container),
        _gateway(options, planned, container),
        _download(options, container),
    )
    return DeploymentSpec(app, options.environment, planned, container, functions, options)


def dearest(plans: Sequence[Plan]) -> Plan:
    """What a bill is reckoned with: nobody knows which of the GPUs will be free."""
    return max(plans, key=lambda plan: plan.cost.per_hour)


def _machine(plan: Plan) -> dict[str, Any]:
    """What the container must know of a choice of GPUs, should it find itself on them."""
    return {"gpu": plan.gpu_string, "memory": plan.gpu.memory, "settings": plan.settings}


def _startup_timeout(options: DeployOptions, planned: Plan) -> int:
    """Seconds; the caller's, or what the slowest read of the weights takes."""
    return options.startup_timeout or round(BOOT + planned.spec.disk_bytes / SLOWEST_READ)


def _serve(
    options: DeployOptions, plans: Sequence[Plan], container: ContainerConfig
) -> FunctionSpec:
    """The function with the GPUs, where nearly all of the money goes.

    As many requests at once as the engine takes: more would queue inside it, where Modal cannot see
    that another container is needed. Of several choices the most; the container knows its own.
    """
    engine = engine_of(container.engine)
    most = max(plan.capacity.max_batch_size for plan in plans)
    return FunctionSpec(
        name="serve",
        image=gpu_image(engine, flash_attention=all(p.gpu.flash_attention for p in plans)),
        secrets=(container_config.KEY,),
        volumes={MOUNT: options.volume},
        read_only=True,
        gpus=_gpus(options, plans),
        caches=engine.caches,
        cpu=options.cpu,
        memory=round(options.memory_gib * 1024),
        timeout=options.timeout,
        startup_timeout=container.startup_timeout,
        min_containers=options.min_containers,
        max_containers=options.max_containers,
        buffer_containers=options.buffer_containers,
        scaledown_window=options.scaledown_window or dearest(plans).idle_window,
        region=options.region,
        web=WebSpec(PORT, options.proxy_auth, most, container.startup_timeout),
    )


def _gpus(options: DeployOptions, plans: Sequence[Plan]) -> tuple[str, ...]:
    """Modal's strings, in the order of preference."""
    if options.gpu:
        return tuple(_gpu(text) for text in options.gpu.split(","))
    return tuple(plan.gpu_string for plan in plans)


def _gpu(text: str) -> str:
    """Modal's string for what ``parse_gpu`` reads; ``H100!`` says that no H200 may stand in."""
    gpu, count = parse_gpu(text)
    name = f"{gpu.name}!" if "!" in text else gpu.name
    return name if count == 1 else f"{name}:{count}"


def _gateway(options: DeployOptions, planned: Plan, container: ContainerConfig) -> FunctionSpec:
    """The web function without a GPU; its containers are cheap and up in seconds.

    From a snapshot, since what takes those seconds are its imports.
    """
    return FunctionSpec(
        name="web_process_image",
        image=cpu_image(),
        secrets=(container_config.KEY,),
        volumes={},
        read_only=True,
        cpu=2,
        memory=4096,
        timeout=min(DAY, container.startup_timeout + options.timeout),
        startup_timeout=120,
        # Four with 64 requests each keep several GPU containers busy.
        max_containers=4,
        region=options.region,
        web=WebSpec(
            None,
            options.proxy_auth,
            min(GATEWAY_CONCURRENCY, max(1, 2 * planned.capacity.sessions)),
            120,
        ),
        snapshot=True,
        env={PRELOAD: "1"},
    )


def _download(options: DeployOptions, container: ContainerConfig) -> FunctionSpec:
    """The function that fills the Volume, run once and on CPUs: a GPU would idle through it."""
    return FunctionSpec(
        name="download_weights",
        image=cpu_image(),
        secrets=(HUGGING_FACE, HUB),
        volumes={MOUNT: options.volume},
        read_only=False,
        gpus=(_gpu(options.download_gpu),) if options.download_gpu else (),
        cpu=4,
        memory=8192,
        # 157 GB take eleven hours at 4 MB a second.
        timeout=DAY,
        startup_timeout=600,
        # Two would download the same files side by side into one Volume.
        max_containers=1,
        scaledown_window=2,
    )
