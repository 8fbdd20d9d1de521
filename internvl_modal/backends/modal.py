"""A deployment on Modal as a backend."""

from __future__ import annotations

from pydantic import SecretStr

from internvl_modal.backends.base import Endpoint, Priced, checked_key
from internvl_modal.backends.lmdeploy import CAPABILITIES
from internvl_modal.settings import Settings, variable_name


def proxy_token(settings: Settings) -> tuple[SecretStr, SecretStr] | None:
    """Modal's proxy token, where both of its parts are set; raises ConfigError."""
    key = checked_key(settings.modal_key, variable_name("modal_key"))
    secret = checked_key(settings.modal_secret, variable_name("modal_secret"))
    return (key, secret) if key and secret else None


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
        plan: Priced | None = None,
        timeout: float | None = None,
    ) -> None:
        self._app, self._environment, self._model = app, environment, model
        self._key = api_key if isinstance(api_key, SecretStr) else SecretStr(api_key)
        self._proxy = proxy
        self.plan, self.timeout = plan, timeout
        self._url: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> ModalBackend:
        """The deployment of the model that the settings name."""
        from internvl_modal.deploying import connect

        key = settings.api_key if "api_key" in settings.given else None
        return connect(settings.model, api_key=key).backend()

    def start(self) -> Endpoint:
        """Return where the deployment answers; raises DeployError if there is none."""
        from internvl_modal.modal_objects import web_url

        if self._url is None:
            self._url = web_url(self._app, "serve", self._environment)
        headers = {"authorization": f"Bearer {self._key.get_secret_value()}"}
        if self._proxy is not None:
            names = ("Modal-Key", "Modal-Secret")
            headers |= {
                name: value.get_secret_value()
                for name, value in zip(names, self._proxy, strict=True)
            }
        return Endpoint(f"{self._url}/v1", self._model, headers, CAPABILITIES)

    def stop(self) -> None:
        """Leave the deployment as it is: it scales down by itself."""

    def __repr__(self) -> str:
        return f"ModalBackend({self._app!r})"
