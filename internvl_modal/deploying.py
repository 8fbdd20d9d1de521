"""``deploy`` puts a model on Modal, ``connect`` finds it again."""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from typing_extensions import Unpack

from internvl_modal import deploy_state, modal_objects
from internvl_modal.backends.base import checked_key
from internvl_modal.backends.modal import proxy_token
from internvl_modal.deploy_options import DeployArguments, DeployOptions
from internvl_modal.deploy_spec import HUGGING_FACE, DeploymentSpec, describe
from internvl_modal.deployment import Deployment, is_proxys
from internvl_modal.errors import (
    AuthenticationError,
    ConfigError,
    DeployError,
    InternVLError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
    WeightsError,
    WeightsInterruptedError,
)
from internvl_modal.lmdeploy_server import LMDeployOptions
from internvl_modal.modal_objects import Secrets, errors_of, modal_output, outside_loop
from internvl_modal.modal_runtime import KEY, VERSION_KEY
from internvl_modal.settings import Settings
from internvl_modal.transport import Retry

if TYPE_CHECKING:
    import modal


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
    PlanError and WeightsError; what fails leaves the old one serving, or with ``wait`` puts it
    back when the new one does not answer.
    """
    chosen = DeployOptions.load(model=model, gpu=gpu, name=name, **options)
    spec = describe(chosen, force=force, prices="catalogue" if dry_run else "auto")
    if not spec.plan.fits:
        warnings.warn(f"deploying what should not work: {spec.plan.reason}", stacklevel=2)
    key = checked_key(api_key)
    if api_key is not None:
        LMDeployOptions.parse(api_keys=[key or "", _new_key()], **spec.plan.settings)
    settings = Settings.load()
    proxy = _proxy(settings, chosen)
    if dry_run:
        return Deployment(spec, None, proxy, dry_run=True)
    stop = threading.Event()
    return outside_loop(lambda: _deploy(spec, settings, key, proxy, stop, wait=wait), stop)


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
    """Find a deployment by its name or its model's; without one, what ``deploy()`` would name.

    The key is the one that ``deploy`` kept on this machine unless given; without one the
    deployment can be managed but not asked. Raises DeployError where there is none of that name.
    """
    settings = Settings.load()
    chosen = DeployOptions.load(environment=environment)
    wanted = name or chosen.name or settings.model or chosen.model
    app, tags = outside_loop(lambda: _find(wanted, chosen.environment))
    record = _recorded(settings, app, chosen.environment)
    options, key = _found(wanted, app, chosen.environment, tags), settings.api_key
    if record is not None:
        options, key = DeployOptions.kept(record.options), SecretStr(record.api_key)
    spec = describe(options, force=True, prices="catalogue")
    proxy = _proxy(settings, options) if record else proxy_token(settings)
    return Deployment(spec, checked_key(api_key) or checked_key(key), proxy)


def module_app() -> modal.App:
    """The app of ``internvl_modal.modal_app``, configured by the environment."""
    options = DeployOptions.load()
    settings = Settings.load()
    spec = describe(options, prices="catalogue")
    record = _recorded(settings, spec.app, spec.environment)
    key = SecretStr(record.api_key) if record else checked_key(settings.api_key) or _new_key()
    if record is None:
        _remember(spec, key, settings)
    return modal_objects.build(spec, _secrets(spec, settings, key, _proxy(settings, options)))


def _deploy(
    spec: DeploymentSpec,
    settings: Settings,
    given_key: SecretStr | None,
    proxy: tuple[SecretStr, SecretStr] | None,
    stop: threading.Event,
    *,
    wait: bool,
) -> Deployment:
    tags = modal_objects.tags_of(spec.app, spec.environment)
    record = _recorded(settings, spec.app, spec.environment)
    key = given_key or _key(spec, settings, record, deployed=tags is not None)
    if record is None:
        _remember(spec, key, settings)  # before Modal has it
    deployment, version_key = Deployment(spec, key, proxy), _new_key() if wait else None
    with errors_of(f"deploying {spec.app}"), modal_output():
        given = _secrets(spec, settings, key, proxy, version_key)
        if wait and not _on_volume(spec):
            for line in _download(spec, given, stop):
                print(line, file=sys.stderr, flush=True)  # noqa: T201
        _publish(spec, given)
    _remember(spec, key, settings)
    if version_key is not None:
        try:
            _wait(deployment, version_key, stop, update=tags is not None)
        except DeployError as error:
            if record is None or not _runs(record, tags):
                raise
            raise _restored(record, error, settings) from error
    return deployment


def _publish(spec: DeploymentSpec, given: Secrets) -> None:
    modal_objects.build(spec, given).deploy(environment_name=spec.environment)


def _runs(record: deploy_state.Record, tags: Mapping[str, str] | None) -> bool:
    """Whether what this machine deployed last is what was deployed, as far as tags tell."""
    try:
        spec = describe(DeployOptions.kept(record.options), force=True, prices="catalogue")
    except InternVLError:
        return False
    return modal_objects.told(spec) == tags


def _restored(record: deploy_state.Record, error: DeployError, settings: Settings) -> DeployError:
    """Deploy again what was deployed before: its images are built and its weights there."""
    options = DeployOptions.kept(record.options)
    spec, key = describe(options, force=True, prices="catalogue"), SecretStr(record.api_key)
    try:
        with errors_of(f"deploying {spec.app} as it was"):
            _publish(spec, _secrets(spec, settings, key, _proxy(settings, options)))
    except InternVLError as failure:
        outcome = f"what was deployed before could not be put back: {failure.message}"
    else:
        _remember(spec, key, settings)
        outcome = f"what was deployed before ({spec.plan.gpu_string}) is deployed again"
    return DeployError(f"{error.message}\n{outcome}", hint=error.hint)


def _recorded(settings: Settings, app: str, environment: str | None) -> deploy_state.Record | None:
    name = modal_objects.environment_name(environment)
    return deploy_state.load(settings.state_dir, app, name)


def _remember(spec: DeploymentSpec, key: SecretStr, settings: Settings) -> None:
    name = modal_objects.environment_name(spec.environment)
    record = deploy_state.Record(
        spec.app, name, key.get_secret_value(), spec.options.model_dump(exclude_none=True)
    )
    deploy_state.save(settings.state_dir, record)


def _new_key() -> SecretStr:
    """A key with a prefix, as LMDeploy takes no dash before one of several."""
    return SecretStr(f"ivl-{secrets.token_urlsafe(32)}")


def _key(
    spec: DeploymentSpec,
    settings: Settings,
    record: deploy_state.Record | None,
    *,
    deployed: bool,
) -> SecretStr:
    """The key of the last deploy, or a new one for a new deployment."""
    if record is not None:
        return SecretStr(record.api_key)
    if not deployed:
        return _new_key()
    if key := checked_key(settings.api_key):
        return key
    raise DeployError(
        f"{spec.app} is deployed already, with a key that is not on this machine",
        hint="pass api_key= or set INTERNVL_MODAL_API_KEY: the old key keeps its users, "
        "a new one replaces it",
    )


def _secrets(
    spec: DeploymentSpec,
    settings: Settings,
    key: SecretStr,
    proxy: tuple[SecretStr, SecretStr] | None,
    version_key: SecretStr | None = None,
) -> Secrets:
    """The API key, and what Hugging Face token there is: on Modal, here, or none."""
    variables = {KEY: key.get_secret_value()}
    if version_key is not None:
        variables[VERSION_KEY] = version_key.get_secret_value()
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


def _download(spec: DeploymentSpec, given: Secrets, stop: threading.Event) -> Iterator[str]:
    """Put the weights on the Volume, until ``stop``; yields lines that tell of it.

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
            if stop.is_set():
                break
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                yield str(Progress(**event))
    # Modal's run() swallows Ctrl-C.
    raise WeightsInterruptedError(
        f"{container.model}: interrupted", hint="deploy again: it continues where it stopped"
    )


def _wait(
    deployment: Deployment, version_key: SecretStr, stop: threading.Event, *, update: bool
) -> None:
    """Return once a container of this version answers: those of an older one refuse its key.

    The last log lines are in the error if none does.
    """
    timeout = deployment.spec.container.startup_timeout
    deadline = time.monotonic() + timeout
    asking = replace(deployment, api_key=version_key)
    with asking.client(timeout=timeout, retry=Retry(attempts=1)) as client:
        while not stop.is_set():
            try:
                client.models()
            except (ServerUnavailableError, RateLimitedError, AuthenticationError) as error:
                refused = isinstance(error, AuthenticationError)
                final = refused and (not update or is_proxys(error))
                if final or time.monotonic() > deadline:
                    raise _unanswered(deployment, error) from error
            except ServerError as error:
                raise _unanswered(deployment, error) from error
            else:
                return
            time.sleep(1)


def _unanswered(deployment: Deployment, error: ServerError) -> DeployError:
    lines = "\n".join(deployment.logs(tail=20))
    return DeployError(
        f"{deployment.name} is deployed but does not answer ({error.message}); its last lines:"
        f"\n{lines}",
        hint=f"internvl-modal logs {deployment.name} shows more",
    )


def _found(
    wanted: str, app: str, environment: str | None, tags: Mapping[str, str]
) -> DeployOptions:
    """Options of an app that another machine deployed, as far as its tags tell."""
    told = {"model": _model_of(wanted), **tags}
    return DeployOptions.kept({**told, "name": app, "environment": environment})


def _find(wanted: str, environment: str | None) -> tuple[str, dict[str, str]]:
    """The deployed app meant by its own name or its model's, and what its tags say of it."""
    for app in (wanted, f"multimodal-{_model_of(wanted)}"):
        tags = modal_objects.tags_of(app, environment) if "/" not in app else None
        if tags is not None:
            return app, tags
    raise DeployError(f"{wanted} is not deployed", hint=f"internvl-modal deploy {wanted}")


def _model_of(wanted: str) -> str:
    return wanted.removeprefix("multimodal-").rpartition("/")[2].lower()
