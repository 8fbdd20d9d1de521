"""Modal's objects as a ``DeploymentSpec`` describes them.

Decides nothing: what to make is in the spec, how Modal spells it is here. Functions are wrapped
when they are needed and not decorated at import, so that one module serves any number of
deployments and nothing of Modal is imported with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from internvl_modal.deployment import container_config, containers
from internvl_modal.deployment.modal_api import to_tag

if TYPE_CHECKING:
    import modal

    from internvl_modal.deployment.container_images import ImageSpec
    from internvl_modal.deployment.spec import DeploymentSpec, FunctionSpec


BILL = "deployment"
"""The tag by which a bill tells what was spent for a deployment, downloads and schedules too."""


Secrets: TypeAlias = "Mapping[str, Mapping[str, str] | None]"
"""By name: the variables to make a secret of, or None for the one of that name on Modal."""


def build(spec: DeploymentSpec, secrets: Secrets, version: str) -> modal.App:
    """The app that ``spec`` describes; a secret that is not given is left out.

    Its tags tell ``connect`` on other machines of model, GPU and patience, and ``version``.

    ``version`` is written into the containers' environment and into a tag, so that logs and lookups
    can tell one deploy from the next. Not deployed yet: that is ``publish``'s.
    """
    import modal

    spec = replace(spec, container=replace(spec.container, version=version))
    told = {
        "model": spec.container.model,
        "gpu": (spec.options.gpu or spec.plan.gpu_string).replace("!", ""),
        "engine": spec.container.engine,
        BILL: spec.app,
        "startup_timeout": str(spec.container.startup_timeout),
        "version": version,
    }
    tags = {name: to_tag(value) for name, value in told.items()}
    # A tag that is too long is left out; ``connect`` then falls back to names.
    app = modal.App(spec.app, tags={n: tag for n, tag in tags.items() if len(tag) <= 63})
    # One object for all functions of equal images.
    images = {function.image: image_of(function.image) for function in spec.functions}
    for function in spec.functions:
        _add(app, function, images[function.image], spec, secrets)
    return app


def build_alone(
    name: str, function: FunctionSpec, spec: DeploymentSpec, secrets: Secrets
) -> tuple[modal.App, modal.Function[..., Any, Any]]:
    """An app of one function that knows the deployment ``spec``, to be run and not deployed.

    Ephemeral: it ends with the call, and leaves no deployed function behind.
    """
    import modal

    app = modal.App(name, tags=bill_tags(spec.app))
    return app, _add(app, function, image_of(function.image), spec, secrets)


def bill_tags(app: str) -> dict[str, str]:
    """Tags of an app that works for the deployment ``app``; none where its name is too long."""
    return {BILL: app} if len(app) <= 63 else {}


def _add(
    app: modal.App,
    function: FunctionSpec,
    image: modal.Image,
    spec: DeploymentSpec,
    secrets: Secrets,
) -> Any:
    """Register a function of ``containers`` under its own name, with all that its spec says."""
    implementation = getattr(containers, function.name)
    decorated = _web(function, implementation) if function.web else implementation
    return app.function(
        name=function.name,
        image=image,
        env={**spec.container.to_environment(), **function.env},
        secrets=_secrets(function, secrets, spec.environment),
        volumes=_mounts(function, spec.environment),
        # One as a text: a list of one is another function to Modal.
        gpu=list(function.gpus) if len(function.gpus) > 1 else next(iter(function.gpus), None),
        cpu=function.cpu,
        memory=function.memory,
        timeout=function.timeout,
        startup_timeout=function.startup_timeout,
        min_containers=function.min_containers or None,
        max_containers=function.max_containers,
        buffer_containers=function.buffer_containers or None,
        scaledown_window=function.scaledown_window,
        region=function.region,
        enable_memory_snapshot=function.snapshot,
    )(decorated)


def _mounts(
    function: FunctionSpec, environment: str | None
) -> dict[str | PurePosixPath, modal.Volume | modal.CloudBucketMount]:
    """Volumes by path, made where they are missing, and the bucket where there is one."""
    import modal

    volumes = [(*each, function.read_only) for each in function.volumes.items()]
    volumes += [(*each, False) for each in function.caches.items()]
    mounts: dict[str | PurePosixPath, modal.Volume | modal.CloudBucketMount] = {
        path: modal.Volume.from_name(
            name, environment_name=environment, create_if_missing=True
        ).with_mount_options(read_only=read_only)
        for path, name, read_only in volumes
    }
    if bucket := function.bucket:
        secret = None
        if bucket.secret is not None:
            secret = modal.Secret.from_name(
                bucket.secret,
                environment_name=environment,
                required_keys=list(bucket.variables),
            )
        mounts[container_config.BUCKET] = modal.CloudBucketMount(
            bucket.name,
            bucket_endpoint_url=bucket.endpoint,
            key_prefix=bucket.prefix or None,
            secret=secret,
            read_only=True,
        )
    return mounts


def image_of(spec: ImageSpec) -> modal.Image:
    """Modal's image; layers in the order in which they change least."""
    import modal

    if spec.base == "debian_slim":
        image = modal.Image.debian_slim(spec.python)
    else:
        # The image's own Python is first on its PATH; Modal's process needs the added one.
        path = "ENV PATH=/usr/local/bin:$PATH"
        image = modal.Image.from_registry(
            spec.base, add_python=spec.python, setup_dockerfile_commands=[path]
        ).entrypoint([])
    if spec.commands:
        image = image.run_commands(*spec.commands)
    return image.uv_pip_install(*spec.packages) if spec.packages else image


def _web(function: FunctionSpec, implementation: Callable[..., object]) -> Any:
    """``implementation`` as a web server or an ASGI app, with its concurrency around it."""
    import modal

    web = function.web
    assert web is not None  # nosec B101  # only functions that have it come here
    decorate: Any = (
        modal.asgi_app(requires_proxy_auth=web.proxy_auth)
        if web.port is None
        else modal.web_server(
            web.port, startup_timeout=web.startup_timeout, requires_proxy_auth=web.proxy_auth
        )
    )
    return modal.concurrent(max_inputs=web.concurrency)(decorate(implementation))


def _secrets(function: FunctionSpec, given: Secrets, environment: str | None) -> list[modal.Secret]:
    """Those that are given, in the order of the spec; a name without a value is left out."""
    import modal

    found = []
    for name in function.secrets:
        if name in given:
            variables = given[name]
            found.append(
                modal.Secret.from_name(name, environment_name=environment)
                if variables is None
                else modal.Secret.from_dict(dict(variables))
            )
    return found
