"""Download a picture without being led into a private network.

Every hop is resolved once, all its addresses are judged, and the connection goes to an address
that was judged: a name that changes between check and use gains nothing.
"""

from __future__ import annotations

import socket
import time
from contextlib import closing
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import httpx

from internvl_modal.errors import ImageError
from internvl_modal.images.names import url_name

if TYPE_CHECKING:
    import ssl

REDIRECTS = 5

_METADATA = {
    ip_address("169.254.169.254"),  # AWS, Google, Azure, Oracle and others
    ip_address("169.254.170.2"),  # AWS containers
    ip_address("fd00:ec2::254"),  # AWS
    ip_address("fd20:ce::254"),  # Google
    ip_address("100.100.100.200"),  # Alibaba
    ip_address("192.0.0.192"),  # Oracle's older one
    ip_address("168.63.129.16"),  # Azure's host, a public address
}
_NAT64 = ip_network("64:ff9b::/96")


def forbidden(address: IPv4Address | IPv6Address) -> str | None:
    """Why a client must not connect to ``address`` for a stranger's URL; None when it may."""
    if address in _METADATA:
        return "a cloud metadata address"
    if address in _NAT64:  # how networks without IPv4 reach the public one
        return forbidden(IPv4Address(int(address) & 0xFFFFFFFF))
    if any(getattr(address, trait, None) for trait in ("ipv4_mapped", "sixtofour", "teredo")):
        return "an IPv4 address in IPv6 disguise"
    for trait, kind in _KINDS:
        if getattr(address, trait, False):
            return kind
    return None if address.is_global else "not a public address"


_KINDS = (
    ("is_unspecified", "an unspecified address"),
    ("is_loopback", "a loopback address"),
    ("is_link_local", "a link-local address"),
    ("is_multicast", "a multicast address"),
    ("is_site_local", "a private address"),
    ("is_private", "a private address"),
    ("is_reserved", "a reserved address"),
)


def fetch(url: str, *, timeout: float, max_bytes: int, allow_private: bool = False) -> bytes:
    """The body behind an http(s) URL; raises ImageError.

    ``timeout`` is in seconds for all hops together; a server that trickles can stretch it to
    twice that. Proxies of the environment are not used: they would resolve names themselves.
    """
    name = url_name(url)
    deadline = time.monotonic() + timeout
    try:
        target = httpx.URL(url)
        for _ in range(REDIRECTS + 1):
            answer = _get(target, name, deadline, max_bytes, allow_private)
            if isinstance(answer, bytes):
                return answer
            target = answer
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ImageError("not a URL that can be read", source=name) from error
    except (httpx.TimeoutException, TimeoutError) as error:
        hint = "try again, raise the timeout, or download it yourself"
        raise ImageError(f"not there within {timeout:g} s", source=name, hint=hint) from error
    except (httpx.HTTPError, OSError) as error:
        detail = str(error) or type(error).__name__
        raise ImageError(f"cannot be fetched: {detail:.200}", source=name) from error
    raise ImageError(f"more than {REDIRECTS} redirects", source=name, hint="give the last address")


def _get(
    url: httpx.URL, name: str, deadline: float, max_bytes: int, allow_private: bool
) -> bytes | httpx.URL:
    """One hop: the body, or where it redirects to.

    Below ``httpx.Client``, which would log the whole URL, password and query included.
    """
    addresses = _resolve(url, name, allow_private)
    limits = httpx.Limits(max_keepalive_connections=0)  # else hosts could share a connection
    with httpx.HTTPTransport(trust_env=False, verify=_certificates(), limits=limits) as transport:
        for last, address in enumerate(addresses, 1 - len(addresses)):
            try:
                response = transport.handle_request(_request(url, address, deadline))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if last == 0:
                    raise
                continue
            with closing(response):
                if response.has_redirect_location:
                    return url.join(response.headers["location"])
                return _read(response, name, deadline, max_bytes)
    raise ImageError("the host has no address", source=name)


def _resolve(url: httpx.URL, name: str, allow_private: bool) -> list[str]:
    """The addresses of a URL's host, each judged."""
    host = url.raw_host.decode("ascii")
    if url.scheme not in ("http", "https"):
        hint = "only http and https URLs are fetched"
        raise ImageError(f"leads to a {url.scheme or 'relative'} URL", source=name, hint=hint)
    if not host:
        raise ImageError("a URL without a host", source=name, hint="check the address")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ImageError(f"the host {host!r} is not known", source=name) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        reason = None if allow_private else forbidden(ip_address(address))
        if reason:
            raise ImageError(
                f"leads to {reason} ({host})",
                source=name,
                hint="pass allow_private_urls=True if you trust this URL",
            )
    return addresses


def _request(url: httpx.URL, address: str, deadline: float) -> httpx.Request:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    timeout = httpx.Timeout(left, connect=min(left, 10.0))
    request = httpx.Request(
        "GET",
        url.copy_with(host=address),
        headers={
            "Host": url.netloc.decode("ascii"),
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": "internvl-modal",
        },
        extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": timeout.as_dict()},
    )
    if url.userinfo:
        next(httpx.BasicAuth(url.username, url.password).auth_flow(request))  # adds its header
    return request


def _read(response: httpx.Response, name: str, deadline: float, max_bytes: int) -> bytes:
    if response.status_code != httpx.codes.OK:
        hint = "the address may need a login or have expired" if response.is_client_error else ""
        raise ImageError(f"the server answers {response.status_code}", source=name, hint=hint)
    too_large = ImageError(
        f"larger than {max_bytes:,} bytes", source=name, hint="download and shrink it yourself"
    )
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(body)


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()


URL_BYTES = 100 * 2**20
"""Most bytes fetched for one picture."""
