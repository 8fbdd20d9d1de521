"""A deployment on Modal as a backend."""

from __future__ import annotations

from dataclasses import replace

from pydantic import SecretStr

from internvl_modal.planning.plan import Plan
from internvl_modal.protocol.dialects.lmdeploy import CAPABILITIES
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.settings import Settings


class ModalBackend:
    """The ``serve`` function of a deployed app; ``start`` asks Modal for its URL.

    With ``proxy``, Modal's own key and secret are sent beside the API key. ``plan`` puts a price
    on estimates. ``timeout``, in seconds, leaves time for a cold start.
    """

    name = "modal"

    def __init__(
        self,
        app: str,
        *,
        model: str,
        api_key: SecretStr | str,
        environment: str | None = None,
        proxy: tuple[SecretStr, SecretStr] | None = None,
        plan: Plan | None = None,
        timeout: float | None = None,
    ) -> None:
        self._app, self._environment = app, environment
        self._key = api_key if isinstance(api_key, SecretStr) else SecretStr(api_key)
        self._proxy = proxy
        self._preview = Endpoint(
            "",
            model,
            capabilities=CAPABILITIES,
            timeout=timeout,
            price=plan,
            sessions=plan.capacity.sessions if plan else None,
            usd_per_hour=plan.cost.per_hour if plan else None,
        )
        self._url: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> ModalBackend:
        """The deployment of the model that the settings name."""
        from internvl_modal.deployment.api import connect

        key = settings.api_key if "api_key" in settings.given else None
        return connect(settings.model, api_key=key).backend()

    def preview(self) -> Endpoint:
        """What is known of the deployment without asking Modal."""
        return self._preview

    def start(self) -> Endpoint:
        """Return where the deployment answers; raises DeployError if there is none."""
        from internvl_modal.deployment.modal_api import web_url

        if self._url is None:
            self._url = web_url(self._app, "serve", self._environment)
        headers = {"authorization": f"Bearer {self._key.get_secret_value()}"}
        if self._proxy is not None:
            names = ("Modal-Key", "Modal-Secret")
            headers |= {
                name: value.get_secret_value()
                for name, value in zip(names, self._proxy, strict=True)
            }
        return replace(self._preview, base_url=f"{self._url}/v1", headers=headers)

    def stop(self) -> None:
        """Leave the deployment as it is: it scales down by itself."""

    def __repr__(self) -> str:
        return f"ModalBackend({self._app!r})"
