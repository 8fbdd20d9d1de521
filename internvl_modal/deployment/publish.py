"""One deploy from the key to the answer: weights, publishing, waiting, putting back.

The order is what keeps a deploy safe: everything that can be wrong is checked before Modal is
asked, the key is on disk before Modal has it, the weights are on the Volume before anything is
published, and what does not answer is put back.
"""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import replace
from typing import NoReturn

from pydantic import SecretStr

from internvl_modal._utils.user_warning import warn_user
from internvl_modal.credentials import checked_key
from internvl_modal.deployment import modal_api, modal_build
from internvl_modal.deployment.design import make_spec
from internvl_modal.deployment.handle import Deployment
from internvl_modal.deployment.keys import app_secrets, check_key, key_for, new_key, required_proxy
from internvl_modal.deployment.modal_api import errors_of, modal_output
from internvl_modal.deployment.modal_build import Secrets
from internvl_modal.deployment.modal_rules import check_options
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.planned import planned, required
from internvl_modal.deployment.readiness import wait_for_answer
from internvl_modal.deployment.records import Record, new_version, recorded, remember
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.deployment.volume_weights import commit_on_hub, commit_on_volume, download
from internvl_modal.errors import (
    DeployError,
    InternVLError,
)
from internvl_modal.settings import Settings

log = logging.getLogger(__name__)


class Publication:
    """One deploy, to run in any thread; ``stop`` ends it before its next step.

    Used once. ``stop`` may be set from any thread; steps that have begun are finished.
    """

    def __init__(
        self,
        options: DeployOptions,
        api_key: str | None,
        *,
        wait: bool,
        force: bool,
        dry_run: bool,
        keep: bool = False,
    ) -> None:
        self.stop = threading.Event()
        self._options, self._api_key = options, api_key
        self._wait, self._force, self._dry_run, self._keep = wait, force, dry_run, keep
        self._settings = Settings.load()
        self._proxy = required_proxy(self._settings, options)

    def run(self) -> Deployment:
        """Plan it and do it."""
        spec = self._design()
        if self._dry_run:
            return Deployment.of(spec, None, self._proxy)
        settings = self._settings
        tags = modal_api.tags_of(spec.app, spec.environment)
        record = recorded(settings, spec.app, spec.environment)
        key = checked_key(self._api_key) or key_for(spec, settings, record, tags)
        check_key(spec, key)
        version = new_version(key.get_secret_value())
        version_key = new_key() if self._wait else None
        if record is None and tags is None:
            # A machine that dies in between still knows the key of what was made.
            remember(spec, key, settings, version)  # before Modal has it
        with errors_of(f"deploying {spec.app}"), modal_output():
            given = app_secrets(spec, settings, key, self._proxy, version_key)
            spec = self._with_weights(spec, given) if self._wait else pinned(spec, self._settings)
            if self.stop.is_set():
                raise DeployError(f"deploying {spec.app}: interrupted", hint="nothing was changed")
            _publish(spec, given, version, update=tags is not None)
        remember(spec, key, settings, version)
        # Asked after publishing: a first deploy's URLs do not exist before.
        urls = modal_api.urls_of(spec.app, spec.environment)
        deployment = Deployment.of(spec, key, self._proxy, urls)
        if version_key is not None:
            mark = replace(spec.container, version=version).mark
            try:
                wait_for_answer(deployment, version_key, mark, self.stop, update=tags is not None)
            # Ctrl-C as well: a new app that nobody waits for would be paid for.
            except (InternVLError, KeyboardInterrupt) as error:
                before = record.options_of(tags) if record else None
                self._give_up(deployment, version, record, before, error, update=tags is not None)
        return deployment

    def _with_weights(self, spec: DeploymentSpec, given: Secrets) -> DeploymentSpec:
        """``spec`` with the commit that is on the Volume, downloaded where it is missing."""
        commit = commit_on_volume(spec)
        if commit is None:
            for line in download(spec, given, self.stop):
                print(line, file=sys.stderr, flush=True)  # noqa: T201
            commit = commit_on_volume(spec)
        return _at(spec, commit)

    def _give_up(
        self,
        deployment: Deployment,
        version: str,
        record: Record | None,
        before: dict[str, object] | None,
        error: InternVLError | KeyboardInterrupt,
        *,
        update: bool,
    ) -> NoReturn:
        """Leave nothing that costs money without an answer; raises ``error``, with what was done.

        What was there before is deployed again where this machine knows it. Nothing is done when
        somebody has stopped the app or deployed something else meanwhile.
        """
        spec = deployment.spec
        if self._keep or not _is_live(spec, version):
            raise error
        interrupted = self.stop.is_set() or not isinstance(error, InternVLError)
        if record is not None and before is not None and not interrupted:
            options = DeployOptions.kept({**before, "environment": spec.environment})
            outcome = _put_back(options, SecretStr(record.api_key), self._settings)
        else:
            outcome = _tidied(deployment, update=update)
        if not isinstance(error, InternVLError):
            print(outcome, file=sys.stderr, flush=True)  # noqa: T201
            raise error
        raise DeployError(f"{error.message}\n{outcome}", hint=error.hint) from error

    def _design(self) -> DeploymentSpec:
        """What will be made, checked as far as it can be without Modal."""
        check_options(self._options)
        plans = planned(self._options, "catalogue" if self._dry_run else "auto")
        if not self._force:
            required(plans)
        spec = make_spec(self._options, plans)
        if reasons := [plan.reason for plan in plans if not plan.fits]:
            warn_user(f"deploying what should not work: {reasons[0]}")
        if self._api_key is not None:
            check_key(spec, checked_key(self._api_key) or "")
        return spec


def pinned(spec: DeploymentSpec, settings: Settings) -> DeploymentSpec:
    """``spec`` with the commit that is on the Volume, or that the Hub would give now."""
    return _at(spec, commit_on_volume(spec) or commit_on_hub(spec, settings.hf_token))


def _at(spec: DeploymentSpec, commit: str | None) -> DeploymentSpec:
    if commit is None:
        return spec
    log.info(
        "%s will run the Python code of %s at commit %s",
        spec.container.engine,
        spec.container.model,
        commit,
    )
    return replace(spec, container=replace(spec.container, revision=commit))


def _publish(spec: DeploymentSpec, given: Secrets, version: str, *, update: bool) -> None:
    """Hand the app to Modal; from here on the new version takes requests."""
    strategy = "recreate" if update and _is_full(spec) else "rolling"
    modal_build.build(spec, given, version).deploy(
        environment_name=spec.environment, strategy=strategy
    )


def _is_full(spec: DeploymentSpec) -> bool:
    """Whether as many containers run as may: none of the new version could start beside them.

    Modal would wait for an idle one to end, and one that ``min_containers`` keeps never does.
    """
    serve = modal_api.function(spec.app, "serve", spec.environment)
    return serve.get_current_stats().num_total_runners >= spec.options.max_containers


def _is_live(spec: DeploymentSpec, version: str) -> bool:
    """Whether nobody has stopped the app or deployed something else meanwhile."""
    try:
        tags = modal_api.tags_of(spec.app, spec.environment)
        return tags is not None and tags.get("version") == version
    # Unknown counts as no: what somebody else may have deployed must not be taken down.
    except DeployError:
        return False


def _put_back(options: DeployOptions, key: SecretStr, settings: Settings) -> str:
    """Deploy again what was deployed before: its images are built and its weights there."""
    version = new_version(key.get_secret_value())
    try:
        spec = make_spec(options, planned(options, "catalogue"))
        with errors_of(f"deploying {spec.app} as it was"):
            _publish(
                spec,
                app_secrets(spec, settings, key, required_proxy(settings, options)),
                version,
                update=True,
            )
    except InternVLError as failure:
        return f"what was deployed before could not be put back: {failure.message}"
    remember(spec, key, settings, version)
    return f"what was deployed before ({spec.options.gpu}) is deployed again"


def _tidied(deployment: Deployment, *, update: bool) -> str:
    """Stop an app that is new; let the containers of an older one end by themselves."""
    name = deployment.name
    try:
        if not update:
            deployment.stop()
            return f"{name} is stopped, so that it costs nothing (keep=True leaves it)"
        deployment.scale(min=0)
        return f"{name} is left without an idle container; internvl-modal stop {name} stops it"
    except InternVLError as failure:
        return f"{name} could not be stopped and may cost money: {failure.message}"
