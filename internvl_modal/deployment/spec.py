"""What a deployment consists of, as plain data.

Frozen and comparable: a test can say what a deploy must make, and ``--dry-run`` prints the very
thing that would be made. Nothing in it is Modal's, so reading it needs no client.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape

from internvl_modal._utils.notebook import card
from internvl_modal.deployment.container_config import ContainerConfig
from internvl_modal.deployment.container_images import ImageSpec
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.errors import ConfigError
from internvl_modal.planning.plan import Plan

BUCKETS: dict[str, tuple[str | None, tuple[str, str]]] = {
    "s3": (None, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
    "gs": (
        "https://storage.googleapis.com",
        ("GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET"),
    ),
}
"""Endpoint and credentials by scheme, as ``modal.CloudBucketMount`` documents them.

Google's keys are HMAC keys, as it is read through its S3 interface.
"""


HUGGING_FACE = "huggingface-secret"
HUB = "huggingface-switches"
"""Where the Hub is and how to ask it, made of this machine's variables where there are any."""


@dataclass(frozen=True)
class WebSpec:
    """How a function is reached over HTTP; ``port`` None means an ASGI app.

    ``concurrency`` is requests in one container at a time, ``startup_timeout`` in seconds until its
    port answers; a function has a timeout of its own beside it.
    """

    port: int | None
    proxy_auth: bool
    concurrency: int
    startup_timeout: int


@dataclass(frozen=True)
class BucketSpec:
    """A folder of a bucket, mounted to be read; ``secret`` names one on Modal, None: public.

    >>> BucketSpec.parse("s3://shop/photos/", None).address
    's3://shop/photos/'
    """

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
    """One function of the app; memory in MiB, times in seconds.

    ``name`` is also the name of the function in ``containers`` that runs. ``gpus`` are in order of
    preference, none is a machine of CPUs; ``volumes`` are names by path, and so are ``caches``,
    which it may always write to; ``secrets`` those it gets where they exist. With ``snapshot``
    Modal starts it from its memory as it was when its modules had been imported.
    """

    name: str
    image: ImageSpec
    secrets: tuple[str, ...]
    volumes: dict[str, str]
    read_only: bool
    cpu: float
    memory: int
    timeout: int
    startup_timeout: int
    gpus: tuple[str, ...] = ()
    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window: int = 300
    region: str | None = None
    web: WebSpec | None = None
    bucket: BucketSpec | None = None
    caches: Mapping[str, str] = field(default_factory=dict)
    snapshot: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeploymentSpec:
    """Everything that a deployment creates; ``str()`` shows it for reading."""

    app: str
    environment: str | None
    plan: Plan = field(repr=False)
    """Of the GPUs that cost most by the hour, where there are several to choose from."""
    container: ContainerConfig
    functions: tuple[FunctionSpec, ...]
    options: DeployOptions = field(repr=False)

    @property
    def argv(self) -> list[str]:
        """The command that serves the model, with the repository where the path will stand."""
        return [*self.plan.argv, *self.container.engine_args]

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
        variables = self.container.env
        surcharge = ", and Modal's surcharge for a region" if self.options.region else ""
        lines += [
            f"command   {shlex.join(self.argv)}",
            *(f"          with {name}={shown(name, each)}" for name, each in variables.items()),
            *_machine_lines(self.container),
            f"cost      {self.cost_per_hour:.2f} USD an hour while a GPU container runs, "
            f"at most {self.options.max_containers}{surcharge}",
            *_cheapest_lines(self.plan),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<DeploymentSpec {self.app!r} of {self.container.model} on {self.options.gpu}>"

    def to_dict(self) -> dict[str, object]:
        """All of it ready for JSON, variables that hold secrets masked."""
        variables = self.container.env.items()
        return {
            "app": self.app,
            "environment": self.environment,
            "model": self.container.model,
            "revision": self.container.revision,
            "engine": self.container.engine,
            "command": self.argv,
            "variables": {name: shown(name, value) for name, value in variables},
            "functions": [asdict(function) for function in self.functions],
            "usd_per_hour": self.cost_per_hour,
            "plan": self.plan.to_dict(),
        }

    def _repr_html_(self) -> str:
        facts = [self.container.model, f"{self.cost_per_hour:.2f} USD an hour while it runs"]
        return card(self.app, facts, details={"all of it": f"<pre>{escape(str(self))}</pre>"})


def shown(name: str, value: str) -> str:
    """A variable's value to print, masked where its name says that it is a secret.

    >>> shown("HF_TOKEN", "hf_abc"), shown("OMP_NUM_THREADS", "4")
    ('***', '4')
    """
    secret = re.search(r"TOKEN|KEY|SECRET|PASS|AUTH|CREDENTIAL", name, re.IGNORECASE)
    return "***" if secret else shlex.quote(value)


def _machine_lines(container: ContainerConfig) -> list[str]:
    """What differs by the GPUs that the container finds, where there are several choices."""
    told = [(each["gpu"], each["settings"]) for each in container.machines]
    return [
        f"          on {gpu}: {settings['tp']} GPUs, {settings['max_batch_size']} requests at once"
        for gpu, settings in (told if len(told) > 1 else [])
    ]


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
        f"function  {function.name}: {' or '.join(function.gpus) or 'no GPU'}, "
        f"{function.cpu:g} cores, "
        f"{function.memory / 1024:g} GiB, starts within {function.startup_timeout} s",
        f"  image   {image.base}, Python {image.python}",
        *(f"          {command}" for command in image.commands),
        # All versions: a dry run is also what is compared when two deployments differ.
        f"          {' '.join(image.packages)}",
        *(f"  volume  {name} at {path}" for path, name in function.volumes.items()),
        *(f"  cache   {name} at {path}" for path, name in function.caches.items()),
        *(["  memory  restored from a snapshot"] if function.snapshot else []),
        f"  secrets {', '.join(function.secrets)}",
    ]
