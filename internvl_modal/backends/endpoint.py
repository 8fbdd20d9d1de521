"""Any OpenAI-compatible server that already runs.

The simplest backend: it starts nothing. All care goes into the URL, which is typed by hand, copied
from a provider's page, or holds a password.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from internvl_modal.credentials import checked_key
from internvl_modal.errors import ConfigError
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.settings import Settings


class EndpointBackend:
    """The server at ``base_url``; a URL without a path gets ``/v1``.

    Several URLs are servers of the same model: the least busy one is asked. They have one key, and
    differ in nothing but their address.

    A query is sent with every request (Azure's ``?api-version=``), and a user name with its
    password as basic authentication. Raises ConfigError for anything but an http(s) URL, for a
    key that cannot be sent, and for a key beside a user name: both are the one ``Authorization``.

    >>> EndpointBackend("http://localhost:8000").start().base_url
    'http://localhost:8000/v1'
    """

    name = "endpoint"

    def __init__(
        self,
        base_url: str | Sequence[str],
        *,
        api_key: SecretStr | str | None = None,
        model: str | None = None,
    ) -> None:
        self._url, *others = _several([base_url] if isinstance(base_url, str) else base_url)
        self._others = tuple(each.base for each in others)
        self._api_key = checked_key(api_key)
        self._model = model
        # Either could be meant, and the other would be dropped in silence.
        if self._url.basic is not None and self._api_key is not None:
            raise ConfigError(
                "base_url holds a user name, and there is a key as well",
                hint="a request has one Authorization header: leave one of them out",
            )

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
        if self._url.basic is not None:
            headers["authorization"] = f"Basic {self._url.basic.get_secret_value()}"
        return Endpoint(
            self._url.base, self._model, headers, query=self._url.query, others=self._others
        )

    def stop(self) -> None:
        """Do nothing: the server is not ours."""

    def __repr__(self) -> str:
        urls = self._url.base if not self._others else [self._url.base, *self._others]
        return f"EndpointBackend({urls!r}, model={self._model!r})"


class _Url(NamedTuple):
    """A base URL taken apart: what may hold secrets is neither in ``base`` nor in a repr."""

    base: str
    query: str
    basic: SecretStr | None


def _several(base_urls: Sequence[str]) -> list[_Url]:
    """Each URL taken apart; raises ConfigError where one is there twice, or has its own secrets."""
    if not base_urls or not all(isinstance(each, str) for each in base_urls):
        raise ConfigError("base_url holds no URL", hint=_HINT)
    found = list(dict.fromkeys(map(_parsed, base_urls)))
    if len(found) < len(base_urls):
        raise ConfigError("base_url holds a URL twice", hint="give each server once")
    if len(found) > 1 and any(each.basic or each.query for each in found):
        raise ConfigError(
            "one of several base URLs holds a user name or a query",
            hint="they share one api_key=; put a proxy in front of servers that need more",
        )
    return found


def _parsed(base_url: str) -> _Url:
    """Take a base URL apart; raises ConfigError, which shows neither user, password nor query."""
    # ``from None``: urllib's own message quotes the whole address.
    try:
        parts = urlsplit(base_url.strip())
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError as error:
        raise ConfigError(f"base_url is not a URL: {error}", hint=_HINT) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        raise ConfigError(f"base_url={shown!r} is not an http(s) URL", hint=_HINT)
    # The full address of the endpoint is what many providers' pages show.
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/") or "/v1"
    user, _, host = parts.netloc.rpartition("@")
    base = parts._replace(netloc=host, path=path, query="", fragment="").geturl()
    return _Url(base, parts.query, _basic(user) if user else None)


def _basic(user: str) -> SecretStr:
    """``user:password`` of a URL as basic authentication sends it (RFC 7617)."""
    # Percent-encoded in the URL, since a password may hold "@" or "/"; plain in the header.
    name, _, password = user.partition(":")
    pair = f"{unquote(name)}:{unquote(password)}".encode()
    return SecretStr(b64encode(pair).decode())


_HINT = "give http(s)://HOST:PORT/v1"
