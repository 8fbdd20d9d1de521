"""What a deployment is made of, as plain data: nothing here talks to Modal.

``make_spec`` decides everything; ``modal_build`` builds exactly that.
"""

from __future__ import annotations

from internvl_modal.deployment import container_config
from internvl_modal.deployment.container_config import MOUNT, PORT, ContainerConfig
from internvl_modal.deployment.container_images import cpu_image, gpu_image
from internvl_modal.deployment.modal_rules import check_name
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.spec import HUB, HUGGING_FACE, DeploymentSpec, FunctionSpec, WebSpec
from internvl_modal.engines.lmdeploy import LMDeployOptions, check_engine_args
from internvl_modal.planning.gpus import parse_gpu
from internvl_modal.planning.plan import Plan

GATEWAY_CONCURRENCY = 64
SLOWEST_READ = 150e6
"""Bytes a second: a tenth of what a Volume usually gives."""
BOOT = 600
"""Seconds for the container, CUDA and the first picture, however small the model."""
DAY = 24 * 3600
"""Most seconds that Modal lets a call run."""


def make_spec(options: DeployOptions, planned: Plan) -> DeploymentSpec:
    """Decide all of a deployment of what was planned.

    Raises ConfigError for what LMDeploy itself would refuse, DeployError for what Modal would.
    """
    LMDeployOptions.parse(**planned.settings)
    check_engine_args(options.engine_args)
    app = options.name or f"multimodal-{planned.spec.name}"
    check_name("name", app)
    startup_timeout = _startup_timeout(options, planned)
    chosen = {  # with it the deployment can be found and managed, or made again
        "name": app,
        "model": planned.spec.repo,
        "gpu": _gpu(options.gpu) if options.gpu else planned.gpu_string,
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
        settings=planned.settings,
        startup_timeout=startup_timeout,
        engine_args=options.engine_args,
        env=options.env,
        liveness=options.liveness,
    )
    functions = (
        _serve(options, planned, container),
        _gateway(options, container),
        _download(options, container),
    )
    return DeploymentSpec(app, options.environment, planned, container, functions, options)


def _startup_timeout(options: DeployOptions, planned: Plan) -> int:
    return options.startup_timeout or round(BOOT + planned.spec.disk_bytes / SLOWEST_READ)


def _serve(options: DeployOptions, planned: Plan, container: ContainerConfig) -> FunctionSpec:
    return FunctionSpec(
        name="serve",
        image=gpu_image(flash_attention=planned.gpu.flash_attention),
        secrets=(container_config.KEY,),
        volumes={MOUNT: options.volume},
        read_only=True,
        gpu=options.gpu,
        cpu=options.cpu,
        memory=round(options.memory_gib * 1024),
        timeout=options.timeout,
        startup_timeout=container.startup_timeout,
        min_containers=options.min_containers,
        max_containers=options.max_containers,
        buffer_containers=options.buffer_containers,
        scaledown_window=options.scaledown_window,
        region=options.region,
        web=WebSpec(
            PORT, options.proxy_auth, planned.capacity.max_batch_size, container.startup_timeout
        ),
    )


def _gpu(text: str) -> str:
    """Modal's string for what ``parse_gpu`` reads; ``H100!`` says that no H200 may stand in."""
    gpu, count = parse_gpu(text)
    name = f"{gpu.name}!" if "!" in text else gpu.name
    return name if count == 1 else f"{name}:{count}"


def _gateway(options: DeployOptions, container: ContainerConfig) -> FunctionSpec:
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
        max_containers=4,
        region=options.region,
        web=WebSpec(None, options.proxy_auth, GATEWAY_CONCURRENCY, 120),
    )


def _download(options: DeployOptions, container: ContainerConfig) -> FunctionSpec:
    return FunctionSpec(
        name="download_weights",
        image=cpu_image(),
        secrets=(HUGGING_FACE, HUB),
        volumes={MOUNT: options.volume},
        read_only=False,
        gpu=_gpu(options.download_gpu) if options.download_gpu else None,
        cpu=4,
        memory=8192,
        timeout=DAY,
        startup_timeout=600,
        max_containers=1,
        scaledown_window=2,
    )
