"""A deployment on Modal as a backend.

The deployment itself knows all about it; this is only the plug-in: a name in, an endpoint out.
"""

from __future__ import annotations

from pydantic import SecretStr

from internvl_modal.deployment.api import connect
from internvl_modal.deployment.served_app import ServedApp
from internvl_modal.protocol.dialects.lmdeploy import CAPABILITIES
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.settings import Settings


class ModalBackend:
    """A deployment by its name or its model's, as ``connect`` finds it; ``start`` looks for it.

    Making one asks nobody, so that it can be made in an event loop.

    ``start`` blocks for a question to Modal, the first time. The endpoint's timeout is that of the
    deployment and leaves time for a cold start.
    """

    name = "modal"

    def __init__(
        self,
        deployment: str | None = None,
        *,
        api_key: SecretStr | str | None = None,
        environment: str | None = None,
    ) -> None:
        self._wanted, self._key, self._environment = deployment, api_key, environment
        self._app: ServedApp | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> ModalBackend:
        """The deployment of the model that the settings name."""
        # A key from the environment may belong to another server: ``connect`` decides about that
        # one.
        return cls(
            settings.model, api_key=settings.api_key if "api_key" in settings.given else None
        )

    def preview(self) -> Endpoint:
        """What is known of it: until it is found, how its server is spoken to."""
        if self._app is not None:
            return self._app.preview()
        return Endpoint("", capabilities=CAPABILITIES)

    def start(self) -> Endpoint:
        """Find it and return where it answers; raises DeployError if there is none."""
        if self._app is None:  # two threads may look for it at once: both find the same
            found = connect(self._wanted, api_key=self._key, environment=self._environment)
            self._app = found.backend()
        return self._app.start()

    def stop(self) -> None:
        """Leave the deployment as it is: it scales down by itself."""

    def __repr__(self) -> str:
        return f"ModalBackend({self._wanted!r})" if self._wanted else "ModalBackend()"
