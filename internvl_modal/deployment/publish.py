"""One deploy from the key to the answer: weights, publishing, waiting, putting back."""

from __future__ import annotations

import sys
import threading
import warnings

from pydantic import SecretStr

from internvl_modal.credentials import checked_key
from internvl_modal.deployment import modal_api, modal_build
from internvl_modal.deployment.design import make_spec
from internvl_modal.deployment.handle import Deployment
from internvl_modal.deployment.keys import app_secrets, check_key, key_for, new_key, required_proxy
from internvl_modal.deployment.modal_api import errors_of, modal_output
from internvl_modal.deployment.modal_build import Secrets
from internvl_modal.deployment.modal_rules import check_options
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.planned import planned
from internvl_modal.deployment.readiness import wait_for_answer
from internvl_modal.deployment.records import new_version, recorded, remember
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.deployment.volume_weights import download, on_volume
from internvl_modal.errors import (
    DeployError,
    InternVLError,
)
from internvl_modal.settings import Settings


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
        self._options, self._api_key = options, api_key
        self._wait, self._force, self._dry_run = wait, force, dry_run
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
            remember(spec, key, settings, version)  # before Modal has it
        with errors_of(f"deploying {spec.app}"), modal_output():
            given = app_secrets(spec, settings, key, self._proxy, version_key)
            if self._wait and not on_volume(spec):
                for line in download(spec, given, self.stop):
                    print(line, file=sys.stderr, flush=True)  # noqa: T201
            if self.stop.is_set():
                raise DeployError(f"deploying {spec.app}: interrupted", hint="nothing was changed")
            _publish(spec, given, version)
        remember(spec, key, settings, version)
        urls = modal_api.urls_of(spec.app, spec.environment)
        deployment = Deployment.of(spec, key, self._proxy, urls)
        if version_key is not None:
            try:
                wait_for_answer(deployment, version_key, self.stop, update=tags is not None)
            except InternVLError as error:
                before = record.options_of(tags) if record else None
                gone = self.stop.is_set() or not _is_live(spec, version)
                if record is None or before is None or gone:
                    raise
                options = DeployOptions.kept({**before, "environment": spec.environment})
                raise _restored(options, SecretStr(record.api_key), error, settings) from error
        return deployment

    def _design(self) -> DeploymentSpec:
        """What will be made, checked as far as it can be without Modal."""
        check_options(self._options)
        plan = planned(self._options, "catalogue" if self._dry_run else "auto")
        if not self._force:
            plan.require()
        spec = make_spec(self._options, plan)
        if not plan.fits:
            warnings.warn(f"deploying what should not work: {plan.reason}", stacklevel=2)
        if self._api_key is not None:
            check_key(spec, checked_key(self._api_key) or "")
        return spec


def _publish(spec: DeploymentSpec, given: Secrets, version: str) -> None:
    modal_build.build(spec, given, version).deploy(environment_name=spec.environment)


def _is_live(spec: DeploymentSpec, version: str) -> bool:
    """Whether nobody has stopped the app or deployed something else meanwhile."""
    try:
        tags = modal_api.tags_of(spec.app, spec.environment)
        return tags is not None and tags.get("version") == version
    except DeployError:
        return False


def _restored(
    options: DeployOptions, key: SecretStr, error: InternVLError, settings: Settings
) -> DeployError:
    """Deploy again what was deployed before: its images are built and its weights there."""
    version = new_version(key.get_secret_value())
    try:
        spec = make_spec(options, planned(options, "catalogue"))
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
