"""What a deployment is made of, as plain data: nothing here talks to Modal.

``describe`` decides everything; ``modal_objects`` builds exactly that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from internvl_modal import modal_runtime
from internvl_modal.deploy_options import PLANNED, DeployOptions
from internvl_modal.errors import ConfigError, DeployError
from internvl_modal.gpus import parse_gpu
from internvl_modal.modal_runtime import MOUNT, PORT, ContainerConfig
from internvl_modal.planner import Plan
from internvl_modal.planning import plan

LMDEPLOY_IMAGE = "openmmlab/lmdeploy:v0.7.3-cu12"
PYTHON = "3.12"
"""Of Modal's own process. LMDeploy keeps its 3.10 in /opt/py3, which Modal 1.7 will not run."""

# InternVL's remote code needs timm. flash-attn fetches the wheel that fits the torch it finds.
LMDEPLOY_PACKAGES = (
    "/opt/py3/bin/python -m pip install --no-cache-dir timm==1.0.15",
    "/opt/py3/bin/python -m pip install --no-cache-dir --no-build-isolation"
    " flash-attn==2.7.4.post1",
)
CLIENT_PACKAGES = (
    "aiohttp>=3.10",
    "anyio>=4",
    "httpx>=0.28",
    "httpx-aiohttp>=0.2",
    "huggingface_hub>=0.30",
    "pillow>=11.3",
    "pybase64>=1.4",
    "pydantic>=2.10",
    "pydantic-settings>=2.6",
    "tenacity>=9",
    "tqdm>=4.66",
    "typing-extensions>=4.12",
)
"""This package's own requirements, less what Modal brings; a test compares them."""
GATEWAY_PACKAGES = (
    "fastapi>=0.115.7",
    "prometheus-client>=0.21",
    "python-multipart>=0.0.18",
    "starlette>=0.44",
)
FORMAT_PACKAGES = ("pillow-heif>=0.21",)

BUCKETS: dict[str, tuple[str | None, tuple[str, str]]] = {
    "s3": (None, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
    "gs": (
        "https://storage.googleapis.com",
        ("GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET"),
    ),
}
"""Endpoint and credentials by scheme, as ``modal.CloudBucketMount`` documents them."""

DEFAULT_GPUS = {"internvl2_5-78b": "A100-80GB:4", "internvl2_5-78b-mpo": "A100-80GB:4"}
"""InternVL documents ``--tp 4`` for its 78B, and measures on A100-80GB; others take the planner's
cheapest."""

HUGGING_FACE = "huggingface-secret"
GATEWAY_CONCURRENCY = 64
SLOWEST_READ = 150e6
"""Bytes a second: a tenth of what a Volume usually gives."""
BOOT = 600
"""Seconds for the container, CUDA and the first picture, however small the model."""
DAY = 24 * 3600
"""Most seconds that Modal lets a call run."""


@dataclass(frozen=True)
class ImageSpec:
    """A container image: its base, then its layers in order."""

    base: str
    python: str
    packages: tuple[str, ...]
    commands: tuple[str, ...] = ()


GPU_IMAGE = ImageSpec(LMDEPLOY_IMAGE, PYTHON, CLIENT_PACKAGES, LMDEPLOY_PACKAGES)
CPU_IMAGE = ImageSpec(
    "debian_slim", PYTHON, (*CLIENT_PACKAGES, *GATEWAY_PACKAGES, *FORMAT_PACKAGES)
)


@dataclass(frozen=True)
class WebSpec:
    """How a function is reached over HTTP; ``port`` None means an ASGI app."""

    port: int | None
    proxy_auth: bool
    concurrency: int
    startup_timeout: int


@dataclass(frozen=True)
class BucketSpec:
    """A folder of a bucket, mounted to be read; ``secret`` names one on Modal, None: public."""

    scheme: str
    name: str
    folder: str
    secret: str | None

    @classmethod
    def parse(cls, address: str, secret: str | None) -> BucketSpec:
        """What ``s3://BUCKET/FOLDER`` names, or raises ConfigError."""
        scheme, _, path = address.partition("://")
        name, _, folder = path.strip("/").partition("/")
        if scheme not in BUCKETS or not name:
            hint = "give " + " or ".join(f"{known}://BUCKET/FOLDER" for known in BUCKETS)
            raise ConfigError(f"{address!r} names no bucket", hint=hint)
        return cls(scheme, name, folder.strip("/"), secret)

    @property
    def endpoint(self) -> str | None:
        """Where its provider answers, None for Amazon."""
        return BUCKETS[self.scheme][0]

    @property
    def variables(self) -> tuple[str, str]:
        """What the secret holds."""
        return BUCKETS[self.scheme][1]

    @property
    def prefix(self) -> str:
        """What the names of its files start with in the bucket."""
        return f"{self.folder}/" if self.folder else ""

    @property
    def address(self) -> str:
        """What the addresses of its files start with."""
        return f"{self.scheme}://{self.name}/{self.prefix}"


@dataclass(frozen=True)
class FunctionSpec:
    """One function of the app; memory in MiB, times in seconds."""

    name: str
    image: ImageSpec
    secrets: tuple[str, ...]
    volumes: dict[str, str]
    read_only: bool
    cpu: float
    memory: int
    timeout: int
    startup_timeout: int
    gpu: str | None = None
    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window: int = 300
    region: str | None = None
    web: WebSpec | None = None
    bucket: BucketSpec | None = None


@dataclass(frozen=True)
class DeploymentSpec:
    """Everything that a deployment creates; ``str()`` shows it for reading."""

    app: str
    environment: str | None
    plan: Plan = field(repr=False)
    container: ContainerConfig
    functions: tuple[FunctionSpec, ...]
    options: DeployOptions = field(repr=False)

    @property
    def argv(self) -> list[str]:
        """The command that serves the model, with the repository where the path will stand."""
        return self.plan.argv

    @property
    def cost_per_hour(self) -> float:
        """USD an hour for each GPU container that runs."""
        return self.plan.cost.per_hour

    def function(self, name: str) -> FunctionSpec:
        """One function by name."""
        return next(function for function in self.functions if function.name == name)

    def __str__(self) -> str:
        lines = [f"app       {self.app}", f"model     {self.container.model}"]
        for function in self.functions:
            lines += _function_lines(function)
        surcharge = ", and Modal's surcharge for a region" if self.options.region else ""
        lines += [
            f"command   {' '.join(self.argv)}",
            f"cost      {self.cost_per_hour:.2f} USD an hour while a GPU container runs, "
            f"at most {self.options.max_containers}{surcharge}",
            *_cheapest_lines(self.plan),
        ]
        return "\n".join(lines)


def _cheapest_lines(plan: Plan) -> list[str]:
    """The plan's first choice, where it is another."""
    if not plan.choices or plan.choices[0].gpu_string == plan.gpu_string:
        return []
    best = plan.choices[0]
    there, here = ("-".join(f"{usd:.2f}" for usd in each.cost.per_1000) for each in (best, plan))
    return [
        f"cheapest  {best.gpu_string} by the plan: {best.cost.per_hour:.2f} USD an hour, "
        f"1,000 pictures {there} USD, and {here} on {plan.gpu_string}"
    ]


def _function_lines(function: FunctionSpec) -> list[str]:
    image = function.image
    return [
        f"function  {function.name}: {function.gpu or 'no GPU'}, {function.cpu:g} cores, "
        f"{function.memory / 1024:g} GiB, starts within {function.startup_timeout} s",
        f"  image   {image.base}, Python {image.python}",
        *(f"          {command}" for command in image.commands),
        f"          {' '.join(image.packages)}",
        *(f"  volume  {name} at {path}" for path, name in function.volumes.items()),
        f"  secrets {', '.join(function.secrets)}",
    ]


def describe(
    options: DeployOptions, *, force: bool = False, prices: Literal["auto", "catalogue"] = "auto"
) -> DeploymentSpec:
    """Decide all of a deployment; raises PlanError where it cannot work, unless ``force``.

    Raises ConfigError for what LMDeploy itself would refuse.
    """
    from internvl_modal.lmdeploy_server import LMDeployOptions

    planned = _plan(options, prices)
    if not force:
        planned.require()
    LMDeployOptions.parse(**planned.settings)
    app = options.name or f"multimodal-{planned.spec.name}"
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", app):
        raise DeployError(
            f"{app!r} cannot be the name of a Modal app",
            hint="name= takes up to 63 letters, digits, dots, dashes and underscores",
        )
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
    )
    functions = (
        _serve(options, planned, container),
        _gateway(options, container),
        _download(options, container),
    )
    return DeploymentSpec(app, options.environment, planned, container, functions, options)


def _plan(options: DeployOptions, prices: Literal["auto", "catalogue"]) -> Plan:
    wishes: dict[str, Any] = {name: getattr(options, name) for name in PLANNED}
    gpu = options.gpu or DEFAULT_GPUS.get(options.model.strip().lower().removeprefix("opengvlab/"))
    try:
        if options.download_gpu:
            parse_gpu(options.download_gpu)
        return plan(options.model, gpu=gpu, prices=prices, **wishes)
    except ConfigError as error:
        raise DeployError(error.message, hint=error.hint) from error


def _startup_timeout(options: DeployOptions, planned: Plan) -> int:
    return options.startup_timeout or round(BOOT + planned.spec.disk_bytes / SLOWEST_READ)


def _serve(options: DeployOptions, planned: Plan, container: ContainerConfig) -> FunctionSpec:
    return FunctionSpec(
        name="serve",
        image=GPU_IMAGE,
        secrets=(modal_runtime.KEY,),
        volumes={MOUNT: options.volume},
        read_only=True,
        gpu=options.gpu,
        cpu=options.cpu,
        memory=options.memory_gib * 1024,
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
        image=CPU_IMAGE,
        secrets=(modal_runtime.KEY,),
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
        image=CPU_IMAGE,
        secrets=(HUGGING_FACE,),
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
