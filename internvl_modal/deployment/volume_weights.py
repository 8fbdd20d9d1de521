"""The weights on the Volume, before anything is published.

Before publishing, because a served model without weights fails at its first request, on a GPU that
is paid for meanwhile; and on CPUs, because the network is the bottleneck.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from pydantic import SecretStr

from internvl_modal._utils.user_warning import warn_user
from internvl_modal.deployment import modal_build
from internvl_modal.deployment.modal_build import Secrets
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.errors import (
    WeightsError,
    WeightsInterruptedError,
)

log = logging.getLogger(__name__)


def on_volume(spec: DeploymentSpec) -> bool:
    """Whether ``serve`` will find its weights."""
    return commit_on_volume(spec) is not None


def commit_on_volume(spec: DeploymentSpec) -> str | None:
    """The commit of the weights that ``serve`` will find, None where they are not whole.

    Read through Modal's API from this machine: no container is started. The engines read
    safetensors or .bin, so GGUF files alone do not count.
    """
    from internvl_modal.weights.cache import WeightsCache

    container = spec.container
    cache = WeightsCache.volume(container.volume, environment=spec.environment)
    try:
        found = cache.verify(container.model, container.revision or "main")
    except WeightsError:
        return None
    whole = found.ok and {"safetensors", "bin"} & set(found.variants)
    return found.commit if whole else None


def commit_on_hub(spec: DeploymentSpec, token: SecretStr | None) -> str | None:
    """The commit that the revision means now; None where the Hub cannot be asked, with a warning.

    Raises WeightsError where the Hub has no such repository or revision, or shows it to nobody with
    this ``token``.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    from internvl_modal.weights.hub import Hub
    from internvl_modal.weights.hub_errors import explain, transient
    from internvl_modal.weights.selection import repository_name

    container = spec.container
    model, revision = repository_name(container.model, "auto"), container.revision or "main"
    hub = Hub(token.get_secret_value() if token else None, None)
    try:
        return hub.repository(model, revision).commit
    except Exception as error:
        told = explain(error, model, revision, None, hub)
        if told is None:
            raise
        offline = isinstance(error, OfflineModeIsEnabled)  # said by whoever deploys
        if not offline and not transient(error):
            raise told from told.__cause__
        why = told.message.partition(": ")[2]
        (log.info if offline else warn_user)(
            f"{spec.app}: no commit is pinned, for {why}; the containers take what {revision} "
            "means when the weights are downloaded"
        )
        return None


def download(spec: DeploymentSpec, given: Secrets, stop: threading.Event) -> Iterator[str]:
    """Put the weights on the Volume, until ``stop``; yields lines that tell of it.

    In a run of its own, before anything is published: if it fails, what was deployed stays.

    Raises WeightsInterruptedError when ``stop`` is set, and what the container raised.
    """
    from internvl_modal.weights.progress import DownloadProgress

    container = spec.container
    what = spec.function("download_weights")
    app, function = modal_build.build_alone(f"{spec.app}-weights"[:63], what, spec, given)
    with app.run(environment_name=spec.environment):
        shown = 0.0
        for event in function.remote_gen():
            if "commit" in event:
                yield (
                    f"{container.model} is on the Volume {container.volume}; {container.engine} "
                    f"runs the Python code in it, of commit {event['commit']}"
                )
                return
            if stop.is_set():
                break
            # A line every five seconds: events come many times a second.
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                yield str(DownloadProgress(**event))
    # Modal's run() swallows Ctrl-C.
    raise WeightsInterruptedError(
        f"{container.model}: interrupted", hint="deploy again: it continues where it stopped"
    )
