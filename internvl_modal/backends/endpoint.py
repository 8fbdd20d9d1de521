"""Any OpenAI-compatible server that already runs."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import SecretStr

from internvl_modal.credentials import checked_key
from internvl_modal.errors import ConfigError
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.settings import Settings


class EndpointBackend:
    """The server at ``base_url``; a URL without a path gets ``/v1``.

    Raises ConfigError for anything but an http(s) URL without a user name in it, and for a key
    that cannot be sent.
    """

    name = "endpoint"

    def __init__(
        self, base_url: str, *, api_key: SecretStr | str | None = None, model: str | None = None
    ) -> None:
        self._base_url = _checked(base_url)
        self._api_key = checked_key(api_key)
        self._model = model

    @classmethod
    def from_settings(cls, settings: Settings) -> EndpointBackend:
        """The server that the settings name."""
        if settings.base_url is None:
            raise ConfigError(
                "backend 'endpoint' needs a URL",
                hint="pass base_url= or set INTERNVL_MODAL_BASE_URL",
            )
        return cls(settings.base_url, api_key=settings.api_key, model=settings.model)

    def start(self) -> Endpoint:
        """Return where the server answers; nothing is sent yet."""
        headers = {}
        if self._api_key is not None:
            headers["authorization"] = f"Bearer {self._api_key.get_secret_value()}"
        return Endpoint(self._base_url, model=self._model, headers=headers)

    def stop(self) -> None:
        """Do nothing: the server is not ours."""

    def __repr__(self) -> str:
        return f"EndpointBackend({self._base_url!r}, model={self._model!r})"


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError as error:
        raise ConfigError(f"base_url is not a URL: {error}", hint=_HINT) from error
    if parts.username or parts.password:
        raise ConfigError("base_url holds a user name or password", hint="pass the key as api_key=")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url={base_url!r} is not an http(s) URL", hint=_HINT)
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return parts._replace(path=path, query="", fragment="").geturl()


_HINT = "give http(s)://HOST:PORT/v1"
