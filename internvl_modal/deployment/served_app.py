"""How the ``serve`` function of a deployment is spoken to."""

from __future__ import annotations

from internvl_modal.protocol.dialects.lmdeploy import CAPABILITIES
from internvl_modal.protocol.endpoint import Endpoint


class FixedBackend:
    """An LMDeploy server that serves InternVL at a known URL."""

    name = "modal"

    def __init__(self, base_url: str, api_key: str, model: str) -> None:
        headers = {"authorization": f"Bearer {api_key}"}
        self._endpoint = Endpoint(base_url, model, headers, CAPABILITIES)

    def start(self) -> Endpoint:
        """Return where it answers."""
        return self._endpoint

    def stop(self) -> None:
        """Do nothing: the server is not ours."""
