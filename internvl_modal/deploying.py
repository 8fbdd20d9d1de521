"""``deploy`` puts a model on Modal, ``connect`` finds it again."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from typing_extensions import Unpack

from internvl_modal import deploy_state, modal_objects
from internvl_modal.backends.modal import proxy_token
from internvl_modal.deploy_options import DeployArguments, DeployOptions
from internvl_modal.deploy_spec import HUGGING_FACE, DeploymentSpec, describe
from internvl_modal.deployment import Deployment
from internvl_modal.errors import (
    ConfigError,
    DeployError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
    WeightsError,
    WeightsInterruptedError,
)
from internvl_modal.lmdeploy_server import LMDeployOptions
from internvl_modal.modal_objects import Secrets, errors_of, modal_output, outside_loop
from internvl_modal.modal_runtime import KEY
from internvl_modal.settings import Settings
from internvl_modal.transport import Retry

if TYPE_CHECKING:
    import modal

DEFAULT_MODEL = "internvl2_5-78b"


def deploy(
    model: str | None = None,
    *,
    gpu: str | None = None,
    name: str | None = None,
    api_key: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    force: bool = False,
    **options: Unpack[DeployArguments],
) -> Deployment:
    """Deploy ``model`` (internvl2_5-78b by default) to Modal, or update its deployment.

    ``api_key`` is the one kept from the last deploy, else a new one (INTERNVL_MODAL_API_KEY where
    another machine has deployed it). ``wait`` downloads the weights where they are missing and
    returns once the model answers; ``dry_run`` says what would be made, in ``.spec``, without a
    call to Modal; ``force`` deploys what the plan refuses. Raises ConfigError, DeployError,
    PlanError and WeightsError; what fails before the app is published leaves the old one serving.
    """
    chosen = DeployOptions.load(model=model, gpu=gpu, name=name, **options)
    spec = describe(chosen, force=force, prices="catalogue" if dry_run else "auto")
    if not spec.plan.fits:
        warnings.warn(f"deploying what should not work: {spec.plan.reason}", stacklevel=2)
    if api_key is not None:
        LMDeployOptions.parse(api_keys=[api_key], **spec.plan.settings)
    settings = Settings.load()
    proxy = _proxy(settings, chosen)
    if dry_run:
        return Deployment(spec, SecretStr(""), proxy, dry_run=True)
    return outside_loop(lambda: _deploy(spec, settings, api_key, proxy, wait=wait))


async def adeploy(
    model: str | None = None, *, dry_run: bool = False, **arguments: Any
) -> Deployment:
    """``deploy`` for asyncio, with the same arguments; it works in a thread."""
    return await asyncio.to_thread(deploy, model, dry_run=dry_run, **arguments)


def connect(
    name: str | None = None,
    *,
    api_key: SecretStr | str | None = None,
    environment: str | None = None,
) -> Deployment:
    """Find a deployment by its name or its model's.

    The key is the one that ``deploy`` kept on this machine unless given. Raises DeployError where
    there is no such deployment, or no key.
    """
    settings = Settings.load(api_key=api_key)
    wanted = name or settings.model or DEFAULT_MODEL
    app, tags = outside_loop(lambda: _find(wanted, environment))
    record = deploy_state.load(settings.state_dir, app, environment)
    key = settings.api_key if api_key is not None or record is None else SecretStr(record.api_key)
    if key is None:
        raise DeployError(
            f"there is no key of {app} on this machine",
            hint="pass api_key= or set INTERNVL_MODAL_API_KEY",
        )
    known = record.options if record else {"model": _model_of(wanted), "name": app, **tags}
    still = {name: value for name, value in known.items() if name in DeployOptions.model_fields}
    options = DeployOptions.load(**{**still, "environment": environment})
    spec = describe(options, force=True, prices="catalogue")
    return Deployment(spec, key, _proxy(settings, options))


def module_app() -> modal.App:
    """The app of ``internvl_modal.modal_app``: configured by the environment, its key kept."""
    options = DeployOptions.load()
    settings = Settings.load()
    spec = describe(options, prices="catalogue")
    known = deploy_state.load(settings.state_dir, spec.app, spec.environment)
    key = settings.api_key or SecretStr(known.api_key if known else secrets.token_urlsafe(32))
    _remember(spec, key, settings)
    return modal_objects.build(spec, _secrets(spec, settings, key, _proxy(settings, options)))


def _deploy(
    spec: DeploymentSpec,
    settings: Settings,
    api_key: str | None,
    proxy: tuple[SecretStr, SecretStr] | None,
    *,
    wait: bool,
) -> Deployment:
    key = SecretStr(api_key if api_key is not None else _key(spec, settings))
    deployment = Deployment(spec, key, proxy)
    with errors_of(f"deploying {spec.app}"), modal_output():
        given = _secrets(spec, settings, key, proxy)
        if wait and not _on_volume(spec):
            for line in _download(spec, given):
                print(line, file=sys.stderr, flush=True)  # noqa: T201
        modal_objects.build(spec, given).deploy(environment_name=spec.environment)
    _remember(spec, key, settings)
    if wait:
        _wait(deployment)
    return deployment


def _remember(spec: DeploymentSpec, key: SecretStr, settings: Settings) -> None:
    kept = spec.options.model_dump(exclude_none=True)
    record = deploy_state.Record(spec.app, spec.environment, key.get_secret_value(), kept)
    deploy_state.save(settings.state_dir, record)


def _key(spec: DeploymentSpec, settings: Settings) -> str:
    """The key of the last deploy, or a new one, kept before Modal has it, for a new deployment."""
    if record := deploy_state.load(settings.state_dir, spec.app, spec.environment):
        return record.api_key
    if modal_objects.tags_of(spec.app, spec.environment) is not None:
        if settings.api_key is not None:
            return settings.api_key.get_secret_value()
        raise DeployError(
            f"{spec.app} is deployed already, with a key that is not on this machine",
            hint="pass api_key= or set INTERNVL_MODAL_API_KEY: the old key keeps its users, "
            "a new one replaces it",
        )
    key = secrets.token_urlsafe(32)
    _remember(spec, SecretStr(key), settings)
    return key


def _secrets(
    spec: DeploymentSpec,
    settings: Settings,
    key: SecretStr,
    proxy: tuple[SecretStr, SecretStr] | None,
) -> Secrets:
    """The API key, and what Hugging Face token there is: on Modal, here, or none."""
    variables = {KEY: key.get_secret_value()}
    if proxy is not None:
        names = ("INTERNVL_MODAL_MODAL_KEY", "INTERNVL_MODAL_MODAL_SECRET")
        variables |= {n: v.get_secret_value() for n, v in zip(names, proxy, strict=True)}
    found: dict[str, dict[str, str] | None] = {KEY: variables}
    if modal_objects.secret_exists(HUGGING_FACE, spec.environment):
        found[HUGGING_FACE] = None
    elif settings.hf_token is not None:
        found[HUGGING_FACE] = {"HF_TOKEN": settings.hf_token.get_secret_value()}
    return found


def _proxy(settings: Settings, options: DeployOptions) -> tuple[SecretStr, SecretStr] | None:
    if not options.proxy_auth:
        return None
    token = proxy_token(settings)
    if token is None:
        raise ConfigError(
            "proxy_auth needs a Modal proxy token",
            hint="set INTERNVL_MODAL_MODAL_KEY and INTERNVL_MODAL_MODAL_SECRET",
        )
    return token


def _on_volume(spec: DeploymentSpec) -> bool:
    """Whether ``serve`` will find its weights."""
    from internvl_modal.weights import WeightsCache

    container = spec.container
    cache = WeightsCache.volume(container.volume, environment=spec.environment)
    try:
        return cache.verify(container.model, container.revision or "main").ok
    except WeightsError:
        return False


def _download(spec: DeploymentSpec, given: Secrets) -> Iterator[str]:
    """Put the weights on the Volume; yields lines that tell of it.

    In a run of its own, before anything is published: if it fails, what was deployed stays.
    """
    from internvl_modal.weights.progress import Progress

    container = spec.container
    what = spec.function("download_weights")
    app, function = modal_objects.build_alone(f"{spec.app}-weights"[:63], what, spec, given)
    with app.run(environment_name=spec.environment):
        shown = 0.0
        for event in function.remote_gen():
            if "commit" in event:
                yield f"{container.model} is on the Volume {container.volume}"
                return
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                yield str(Progress(**event))
    # Modal's run() swallows Ctrl-C.
    raise WeightsInterruptedError(
        f"{container.model}: interrupted", hint="deploy again: it continues where it stopped"
    )


def _wait(deployment: Deployment) -> None:
    """Return once the model answers, which after an update a container of the old one may do first.

    Its last log lines are in the error if it does not.
    """
    timeout = deployment.spec.container.startup_timeout
    deadline = time.monotonic() + timeout
    with deployment.client(timeout=timeout, retry=Retry(attempts=1)) as client:
        while True:
            try:
                if deployment.model in (found := client.models()):
                    return
                reason: ServerError = ServerUnavailableError(f"it serves {', '.join(found)}")
            except (ServerUnavailableError, RateLimitedError) as error:
                reason = error
            except ServerError as error:
                raise _unanswered(deployment, error) from error
            if time.monotonic() > deadline:
                raise _unanswered(deployment, reason) from reason
            time.sleep(1)


def _unanswered(deployment: Deployment, error: ServerError) -> DeployError:
    lines = "\n".join(deployment.logs(tail=20))
    return DeployError(
        f"{deployment.name} is deployed but does not answer ({error.message}); its last lines:"
        f"\n{lines}",
        hint=f"internvl-modal logs {deployment.name} shows more",
    )


def _find(wanted: str, environment: str | None) -> tuple[str, dict[str, str]]:
    """The deployed app meant by its own name or its model's, and what its tags say of it."""
    for app in (wanted, f"multimodal-{_model_of(wanted)}"):
        tags = modal_objects.tags_of(app, environment) if "/" not in app else None
        if tags is not None:
            return app, tags
    raise DeployError(f"{wanted} is not deployed", hint=f"internvl-modal deploy {wanted}")


def _model_of(wanted: str) -> str:
    return wanted.removeprefix("multimodal-").rpartition("/")[2].lower()
