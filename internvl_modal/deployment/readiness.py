"""Wait until what was deployed answers."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from pydantic import SecretStr

from internvl_modal.deployment.handle import Deployment
from internvl_modal.errors import (
    AuthenticationError,
    DeployError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.transport.retry import Retry


def is_proxys(error: ServerError) -> bool:
    """Whether Modal refused a request itself, before it reached a container."""
    return error.body.startswith("modal-http:")


def wait_for_answer(
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
                    raise unanswered(deployment, error) from error
            except ServerError as error:
                raise unanswered(deployment, error) from error
            else:
                return
            time.sleep(1)


def unanswered(deployment: Deployment, error: ServerError) -> DeployError:
    """The error of a deployment that does not answer, with the end of its log."""
    try:
        lines = "\n".join(deployment.logs(tail=20))
    except DeployError as failure:  # must not hide what is wrong
        lines = f"(no log: {failure.message})"
    return DeployError(
        f"{deployment.name} is deployed but does not answer ({error.message}); its last lines:"
        f"\n{lines}",
        hint=f"internvl-modal logs {deployment.name} shows more",
    )
