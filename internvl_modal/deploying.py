"""``deploy`` puts a model on Modal, ``connect`` finds it again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from typing_extensions import Unpack

from internvl_modal import modal_objects
from internvl_modal.backends.base import checked_key
from internvl_modal.backends.modal import proxy_token
from internvl_modal.deploy_options import DeployArguments, DeployOptions
from internvl_modal.deploy_spec import describe
from internvl_modal.deployment import Deployment
from internvl_modal.errors import DeployError
from internvl_modal.modal_objects import outside_loop
from internvl_modal.publishing import (
    Publication,
    app_secrets,
    check_key,
    new_key,
    new_version,
    recorded,
    remember,
    required_proxy,
)
from internvl_modal.settings import Settings
from internvl_modal.threads import in_daemon

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
    work = Publication(chosen, api_key, wait=wait, force=force, dry_run=dry_run)
    return outside_loop(work.run, work.stop)


async def adeploy(
    model: str | None = None,
    *,
    api_key: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    force: bool = False,
    **options: Any,
) -> Deployment:
    """``deploy`` for asyncio, with the same arguments; it works in a thread."""
    chosen = DeployOptions.load(model=model, **options)
    work = Publication(chosen, api_key, wait=wait, force=force, dry_run=dry_run)
    try:
        return await asyncio.wrap_future(in_daemon(work.run))
    finally:
        work.stop.set()


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
    wanted = name or chosen.name or chosen.model
    app, tags = outside_loop(lambda: _find(wanted, chosen.environment))
    record = recorded(settings, app, chosen.environment)
    options, key = _found(wanted, app, chosen.environment, tags), settings.api_key
    if record is not None:
        options, key = DeployOptions.kept(record.options), SecretStr(record.api_key)
    spec = describe(options, force=True, prices="catalogue")
    proxy = proxy_token(settings) if record is None or options.proxy_auth else None
    return Deployment(spec, checked_key(api_key) or checked_key(key), proxy)


def module_app() -> modal.App:
    """The app of ``internvl_modal.modal_app``, configured by the environment."""
    options = DeployOptions.load()
    settings = Settings.load()
    spec = describe(options, prices="catalogue")
    record = recorded(settings, spec.app, spec.environment)
    key = SecretStr(record.api_key) if record else checked_key(settings.api_key) or new_key()
    check_key(spec, key)
    if record is None:
        remember(spec, key, settings)
    given = app_secrets(spec, settings, key, required_proxy(settings, options))
    return modal_objects.build(spec, given, new_version())


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
