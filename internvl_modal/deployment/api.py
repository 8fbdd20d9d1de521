"""``deploy`` puts a model on Modal, ``connect`` finds it again.

The only module of the folder that users call. ``deploy`` runs in the caller's thread where no event
loop runs there, ``adeploy`` always in one of its own: a deploy takes minutes, and Modal's blocking
client must not hold an event loop up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr
from typing_extensions import Unpack

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal._utils.short_errors import short_errors
from internvl_modal.credentials import checked_key, proxy_token
from internvl_modal.deployment import modal_api, modal_build
from internvl_modal.deployment.design import make_spec
from internvl_modal.deployment.handle import Deployment
from internvl_modal.deployment.keys import app_secrets, check_key, key_for, required_proxy
from internvl_modal.deployment.modal_api import outside_loop
from internvl_modal.deployment.modal_rules import check_environment, check_options
from internvl_modal.deployment.options import DeployArguments, DeployOptions, with_deploy_arguments
from internvl_modal.deployment.planned import planned, required
from internvl_modal.deployment.publish import Publication, pinned
from internvl_modal.deployment.records import new_version, recorded, remember
from internvl_modal.errors import ConfigError, DeployError
from internvl_modal.settings import Settings

if TYPE_CHECKING:
    import modal

TIDYING = 10.0
"""Seconds that a cancelled ``adeploy`` may take to stop what it has started.

A second Ctrl-C does not wait for it.
"""


@short_errors
@with_deploy_arguments
def deploy(
    model: str | None = None,
    *,
    gpu: str | Sequence[str] | None = None,
    name: str | None = None,
    api_key: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    keep: bool = False,
    force: bool = False,
    **options: Unpack[DeployArguments],
) -> Deployment:
    """Deploy ``model`` (internvl2_5-78b by default) to Modal, or update its deployment.

    Of several ``gpu`` Modal takes the first that is free; each must fit. ``api_key`` is the one
    kept from the last deploy, else a new one (INTERNVL_MODAL_API_KEY where another machine has
    deployed it). ``wait`` downloads the weights where they are missing and
    returns once the model answers; ``dry_run`` says what would be made, in ``.spec``, without a
    call to Modal; ``force`` deploys what the plan refuses. Raises ConfigError, DeployError,
    PlanError and WeightsError; what fails leaves the old one serving, or with ``wait`` puts it
    back when the new one does not answer. A new app that does not answer is stopped, unless
    ``keep``.

    >>> made = deploy("internvl2_5-8b", gpu="L40S", dry_run=True)  # doctest: +SKIP
    >>> print(made.spec)  # doctest: +SKIP
    """
    chosen = DeployOptions.load(model=model, gpu=gpu, name=name, **options)
    # Options are checked before the work begins, so that what is wrong is raised at the call.
    work = Publication(chosen, api_key, wait=wait, force=force, dry_run=dry_run, keep=keep)
    return outside_loop(work.run, work.stop)


@short_errors
@with_deploy_arguments
async def adeploy(
    model: str | None = None,
    *,
    gpu: str | Sequence[str] | None = None,
    name: str | None = None,
    api_key: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    keep: bool = False,
    force: bool = False,
    **options: Unpack[DeployArguments],
) -> Deployment:
    """``deploy`` for asyncio, with the same arguments; it works in a thread."""
    chosen = DeployOptions.load(model=model, gpu=gpu, name=name, **options)
    work = Publication(chosen, api_key, wait=wait, force=force, dry_run=dry_run, keep=keep)
    work_done = asyncio.wrap_future(in_daemon(work.run))
    try:
        return await asyncio.shield(work_done)
    except asyncio.CancelledError:
        work.stop.set()
        # Its error is looked at, or asyncio would report that nobody has.
        work_done.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([work_done], timeout=TIDYING)  # stopping a new app takes a moment
        raise


@short_errors
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
    given = checked_key(api_key)
    return outside_loop(lambda: _connected(name, given, environment))


@short_errors
async def aconnect(
    name: str | None = None,
    *,
    api_key: SecretStr | str | None = None,
    environment: str | None = None,
) -> Deployment:
    """``connect`` for asyncio, with the same arguments; it works in a thread."""
    given = checked_key(api_key)
    return await asyncio.wrap_future(in_daemon(lambda: _connected(name, given, environment)))


def _connected(name: str | None, key: SecretStr | None, environment: str | None) -> Deployment:
    """Look the app up on Modal; its tags, this machine's record and settings make the handle."""
    settings = Settings.load()
    chosen = DeployOptions.load(environment=environment)
    check_environment(chosen.environment)
    wanted = (name or chosen.name or chosen.model).strip()
    app, tags = _find(wanted, chosen)
    record = recorded(settings, app, chosen.environment)
    options = (record and record.options_of(tags)) or {
        "model": tags.get("model", _model_of(wanted)),
        "gpu": tags.get("gpu"),
        "engine": tags.get("engine"),
        "startup_timeout": int(tags.get("startup_timeout", 0)) or None,
    }
    # A key from the environment counts only where this machine has kept none for what is deployed:
    # the environment may be about another server.
    known = SecretStr(record.api_key) if record and record.opens(tags) else settings.api_key
    return Deployment(
        DeployOptions.kept({**options, "name": app, "environment": chosen.environment}),
        key or checked_key(known),
        proxy_token(settings),
        modal_api.urls_of(app, chosen.environment),
    )


@short_errors
def module_app() -> modal.App:
    """The app of ``internvl_modal.modal_app``, configured by the environment.

    Runs while Modal's command line imports a module, so nothing may be deployed in it: the command
    does that afterwards. Raises what ``deploy`` does, but for what comes of publishing.
    """
    options = DeployOptions.load()
    check_options(options)
    settings = Settings.load()
    if (wanted := options.environment) not in (None, modal_api.environment_name(None)):
        raise ConfigError(
            f"environment={wanted!r}, but modal deploys to another one",
            hint=f"modal deploy --env {wanted}, or MODAL_ENVIRONMENT={wanted}",
        )
    spec = make_spec(options, required(planned(options, "catalogue")))
    tags = modal_api.tags_of(spec.app, spec.environment)
    record = recorded(settings, spec.app, spec.environment)
    # The environment's key may only start a deployment; with one that exists it must be the old
    # key, which ``key_for`` sees to.
    first = checked_key(settings.api_key) if record is None and tags is None else None
    key = first or key_for(spec, settings, record, tags)
    check_key(spec, key)
    spec = pinned(spec, settings)  # may raise, and nothing is kept yet
    version = new_version(key.get_secret_value())
    given = app_secrets(spec, settings, key, required_proxy(settings, options))
    # The command may still fail after this: until then the record must open what is deployed now.
    before = record.options_of(tags) if record and tags else None
    remember(spec, key, settings, version, {tags["version"]: before} if tags and before else None)
    return modal_build.build(spec, given, version)


def _find(wanted: str, chosen: DeployOptions) -> tuple[str, dict[str, str]]:
    """The deployed app meant by its own name or its model's, and what its tags say of it.

    ``chosen`` may name the app that serves the model.

    A name that is given wins over a model's; an app without our tags is somebody else's.
    """
    model = _model_of(wanted)
    for app in filter(None, (wanted, chosen.name, f"multimodal-{model}")):
        tags = modal_api.tags_of(app, chosen.environment) if "/" not in app else None
        if tags is None or "version" not in tags:  # none of ours
            continue
        if app != chosen.name or app == wanted or _model_of(tags.get("model", "")) == model:
            return app, tags
    raise DeployError(f"{wanted} is not deployed", hint=f"internvl-modal deploy {wanted}")


def _model_of(wanted: str) -> str:
    return wanted.removeprefix("multimodal-").rpartition("/")[2].lower()
