"""One deploy from the key to the answer: weights, publishing, waiting, putting back."""

from __future__ import annotations

import secrets
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping

from pydantic import SecretStr

from internvl_modal import deploy_state, modal_objects
from internvl_modal.backends.base import checked_key
from internvl_modal.backends.modal import proxy_token
from internvl_modal.deploy_options import DeployOptions
from internvl_modal.deploy_spec import HUGGING_FACE, DeploymentSpec, describe
from internvl_modal.deploy_state import Record, new_version
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
from internvl_modal.modal_objects import Secrets, errors_of, modal_output
from internvl_modal.modal_runtime import KEY, VERSION_KEY
from internvl_modal.settings import Settings
from internvl_modal.transport import Retry


class Publication:
    """One deploy, to run in any thread; ``stop`` ends it before its next step."""

    def __init__(
        self,
        options: DeployOptions,
        api_key: str | None,
        *,
        wait: bool,
        force: bool,
        dry_run: bool,
    ) -> None:
        self.stop = threading.Event()
        self._settings = Settings.load()
        self._api_key, self._wait, self._dry_run = api_key, wait, dry_run
        self._spec = describe(options, force=force, prices="catalogue" if dry_run else "auto")
        if not self._spec.plan.fits:
            reason = self._spec.plan.reason
            warnings.warn(f"deploying what should not work: {reason}", stacklevel=3)
        self._proxy = required_proxy(self._settings, options)
        if api_key is not None:
            check_key(self._spec, checked_key(api_key) or "")

    def run(self) -> Deployment:
        """Do it."""
        if self._dry_run:
            return Deployment.of(self._spec, None, self._proxy, dry_run=True)
        spec, settings = self._spec, self._settings
        tags = modal_objects.tags_of(spec.app, spec.environment)
        record = recorded(settings, spec.app, spec.environment)
        key = checked_key(self._api_key) or key_for(spec, settings, record, tags)
        check_key(spec, key)
        version = new_version(key.get_secret_value())
        version_key = new_key() if self._wait else None
        if record is None and tags is None:
            remember(spec, key, settings, version)  # before Modal has it
        with errors_of(f"deploying {spec.app}"), modal_output():
            given = app_secrets(spec, settings, key, self._proxy, version_key)
            if self._wait and not _on_volume(spec):
                for line in _download(spec, given, self.stop):
                    print(line, file=sys.stderr, flush=True)  # noqa: T201
            if self.stop.is_set():
                raise DeployError(f"deploying {spec.app}: interrupted", hint="nothing was changed")
            _publish(spec, given, version)
        remember(spec, key, settings, version)
        deployment = Deployment.of(spec, key, self._proxy)
        if version_key is not None:
            try:
                _wait(deployment, version_key, self.stop, update=tags is not None)
            except InternVLError as error:
                before = record.options_of(tags) if record else None
                gone = self.stop.is_set() or not _is_live(spec, version)
                if record is None or before is None or gone:
                    raise
                options = DeployOptions.kept({**before, "environment": spec.environment})
                raise _restored(options, SecretStr(record.api_key), error, settings) from error
        return deployment


def check_key(spec: DeploymentSpec, key: SecretStr | str) -> None:
    """Refuse a key that LMDeploy could not be started with, a second one beside it."""
    LMDeployOptions.parse(api_keys=[key, new_key()], **spec.plan.settings)


def _publish(spec: DeploymentSpec, given: Secrets, version: str) -> None:
    modal_objects.build(spec, given, version).deploy(environment_name=spec.environment)


def _is_live(spec: DeploymentSpec, version: str) -> bool:
    """Whether nobody has stopped the app or deployed something else meanwhile."""
    try:
        tags = modal_objects.tags_of(spec.app, spec.environment)
        return tags is not None and tags.get("version") == version
    except DeployError:
        return False


def _restored(
    options: DeployOptions, key: SecretStr, error: InternVLError, settings: Settings
) -> DeployError:
    """Deploy again what was deployed before: its images are built and its weights there."""
    version = new_version(key.get_secret_value())
    try:
        spec = describe(options, force=True, prices="catalogue")
        with errors_of(f"deploying {spec.app} as it was"):
            _publish(
                spec, app_secrets(spec, settings, key, required_proxy(settings, options)), version
            )
    except InternVLError as failure:
        outcome = f"what was deployed before could not be put back: {failure.message}"
    else:
        remember(spec, key, settings, version)
        outcome = f"what was deployed before ({spec.plan.gpu_string}) is deployed again"
    return DeployError(f"{error.message}\n{outcome}", hint=error.hint)


def recorded(settings: Settings, app: str, environment: str | None) -> Record | None:
    """What this machine knows of a deployment; raises DeployError where that cannot be read."""
    name = modal_objects.environment_name(environment)
    return deploy_state.load(settings.state_dir, app, name)


def remember(
    spec: DeploymentSpec,
    key: SecretStr,
    settings: Settings,
    version: str,
    before: Mapping[str, dict[str, object]] | None = None,
) -> None:
    """Keep what another deploy needs; ``before`` is what is deployed until this is."""
    name = modal_objects.environment_name(spec.environment)
    versions = {**(before or {}), version: spec.options.model_dump(exclude_none=True)}
    record = Record(spec.app, name, key.get_secret_value(), versions)
    deploy_state.save(settings.state_dir, record)


def new_key() -> SecretStr:
    """A key with a prefix, as LMDeploy takes no dash before one of several."""
    return SecretStr(f"ivl-{secrets.token_urlsafe(32)}")


def key_for(
    spec: DeploymentSpec,
    settings: Settings,
    record: Record | None,
    tags: Mapping[str, str] | None,
) -> SecretStr:
    """The key of what is deployed, or one for a new deployment; raises DeployError."""
    if record is not None and record.opens(tags):
        return SecretStr(record.api_key)
    if tags is None:
        return new_key()
    if key := checked_key(settings.api_key):
        return key
    raise DeployError(
        f"{spec.app} is deployed already, with a key that is not on this machine",
        hint="pass api_key= or set INTERNVL_MODAL_API_KEY: the old key keeps its users, "
        "a new one replaces it",
    )


def app_secrets(
    spec: DeploymentSpec,
    settings: Settings,
    key: SecretStr,
    proxy: tuple[SecretStr, SecretStr] | None,
    version_key: SecretStr | None = None,
) -> Secrets:
    """The API key, and what Hugging Face token there is: on Modal, here, or none."""
    variables = Deployment.of(spec, key, proxy).secrets
    if version_key is not None:
        variables[VERSION_KEY] = version_key.get_secret_value()
    found: dict[str, dict[str, str] | None] = {KEY: variables}
    if modal_objects.secret_exists(HUGGING_FACE, spec.environment):
        found[HUGGING_FACE] = None
    elif settings.hf_token is not None:
        found[HUGGING_FACE] = {"HF_TOKEN": settings.hf_token.get_secret_value()}
    return found


def required_proxy(
    settings: Settings, options: DeployOptions
) -> tuple[SecretStr, SecretStr] | None:
    """Modal's proxy token where the options ask for it; raises ConfigError where there is none."""
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
        found = cache.verify(container.model, container.revision or "main")
    except WeightsError:
        return False
    return found.ok and bool({"safetensors", "bin"} & set(found.variants))


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
    asking = Deployment.of(deployment.spec, version_key, deployment.proxy)
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
    try:
        lines = "\n".join(deployment.logs(tail=20))
    except DeployError as failure:  # must not hide what is wrong
        lines = f"(no log: {failure.message})"
    return DeployError(
        f"{deployment.name} is deployed but does not answer ({error.message}); its last lines:"
        f"\n{lines}",
        hint=f"internvl-modal logs {deployment.name} shows more",
    )
