"""Proxies and certificates that the environment names, for servers on other machines.

aiohttp's ``trust_env`` reads proxies but not SOCKS, and no NO_PROXY with networks; urllib's rules
are those of curl and requests, which users know.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi

from internvl_modal.errors import ConfigError

__all__ = ["SOCKS", "certificates", "is_local", "proxy_for"]

SOCKS = ("socks4", "socks5", "socks5h")
_ALIASES = {"socks": "socks5", "socks4a": "socks4"}


@lru_cache(maxsize=64)
def is_local(host: str) -> bool:
    """Whether ``host`` is this machine, which no proxy reaches.

    0.0.0.0 counts too: people copy it from a server's log.

    >>> is_local("127.0.0.5"), is_local("api.localhost"), is_local("10.0.0.1")
    (True, True, False)
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def proxy_for(url: str) -> str | None:
    """The proxy that the environment, or the system, names for ``url``; raises ConfigError.

    Servers on this machine have none. A proxy without a scheme is an HTTP one.

    Read for every request: a notebook may set it after the client was made.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_local(host):
        return None
    found = getproxies()
    kind = parts.scheme if parts.scheme in found else "all"
    proxy = found.get(kind)
    # ``proxy_bypass`` knows names, and the systems' own lists; addresses in networks it does not.
    if not proxy or _bypassed(host, found.get("no", "")) or proxy_bypass(host):
        return None
    return _checked(proxy if "://" in proxy else f"http://{proxy}", _variable(kind, proxy))


def _checked(proxy: str, variable: str) -> str:
    """``proxy`` with a scheme that can be spoken; its address may hold a password: never shown."""
    scheme, _, rest = proxy.partition("://")
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or scheme not in ("http", "https", *SOCKS):
        raise ConfigError(
            f"{variable} is not the URL of a proxy",
            hint="give http://HOST:PORT or socks5://HOST:PORT, or unset it",
        )
    return f"{scheme}://{rest}"


def _variable(kind: str, value: str) -> str:
    """The variable that says so; systems have proxies of their own."""
    names = [name for name in os.environ if name.lower() == f"{kind}_proxy"]
    return next((name for name in names if os.environ[name] == value), "the system's proxy")


def _bypassed(host: str, listed: str) -> bool:
    """Whether ``listed``, a NO_PROXY, holds the address ``host`` in brackets or in a network."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    for entry in listed.split(","):
        try:
            if address in ip_network(entry.strip().strip("[]"), strict=False):
                return True
        except ValueError:
            continue
    return False


def certificates() -> ssl.SSLContext:
    """Whom to trust: SSL_CERT_FILE and SSL_CERT_DIR, else certifi's list; raises ConfigError.

    Both may be given. Loaded once for a pool.
    """
    # OpenSSL passes over a path that is missing, and then trusts nobody, with a message about the
    # server.
    for name, exists in (("SSL_CERT_FILE", Path.is_file), ("SSL_CERT_DIR", Path.is_dir)):
        value = os.environ.get(name)
        if value and not exists(Path(value)):
            raise ConfigError(f"{name} names nothing that is there", hint="correct it or unset it")
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        return ssl.create_default_context(
            cafile=file or (None if folder else certifi.where()), capath=folder or None
        )
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            "SSL_CERT_FILE holds no certificates", hint="correct it or unset it"
        ) from error
