"""Where a redirect leads: which are followed, by which request, and what the others mean.

Pure, as ``exchange`` is. A server's ``Location`` may be anything: what is wrong with it is the
server's fault, and said of the server.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from internvl_modal.errors import (
    ConfigError,
    InternVLError,
    RequestRejectedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.transport.exchange import (
    AstrayError,
    Exchange,
    Hop,
    Reply,
    UnusableError,
    checked,
    shown,
)

__all__ = ["next_hop", "unusable"]

MOST_REDIRECTS = 50
"""Modal answers a cold web request with a redirect every 150 s: 50 of them are two hours."""


def next_hop(hop: Hop, reply: Reply, step: Exchange[Any]) -> Hop | None:
    """The request that a redirect asks for, without our keys when it leaves the origin.

    303 turns into GET, 307 and 308 repeat the body. Raises ServerError for one that is not
    followed: a 301 or 302 of a POST among them, which browsers turn into a GET without its body.
    """
    if reply.status not in (301, 302, 303, 307, 308):
        return None
    location = reply.headers.get("location")
    if not location:
        return None
    so_far, host = step.so_far, shown(step.base_url)
    so_far.hops += 1
    if so_far.hops >= MOST_REDIRECTS:
        raise ServerUnavailableError(f"{host} redirected {so_far.hops} times", hint="check the URL")
    try:
        url = urljoin(hop.url, location)
        parts = checked(url)
        # Whoever redirects could make us log in somewhere under another name.
        if parts.username is not None or parts.password is not None:
            raise ValueError("it holds a user name or password")
        if parts.scheme == "http" and urlsplit(hop.url).scheme == "https":
            raise ValueError("it leaves https")
    except ValueError as error:
        raise _not_followed(step, str(error), reply.status) from None
    headers, body, method = dict(hop.headers), hop.body, hop.method
    if reply.status in (301, 302) and method == "POST":
        raise _moved(step, url, reply.status)
    # All but the content type: a key may have any header's name, such as Modal-Key.
    if _origin(parts) != _origin(urlsplit(hop.url)):
        headers = {name: headers[name] for name in headers if name.lower() == "content-type"}
    if reply.status == 303:
        method, body = "GET", b""
        headers = {name: headers[name] for name in headers if name.lower() != "content-type"}
    following = Hop(method, url.partition("#")[0], headers, body, step.deadline)
    # Modal's 303: the answer is being made, and this address gives it once.
    if step.request.method == "POST" and method == "GET":
        so_far.hop = following
    return following


def unusable(step: Exchange[Any], error: UnusableError, status: int | None) -> InternVLError:
    """The error of a URL that a carrier cannot use; ``status`` is that of what led to it."""
    if status is None and not isinstance(error, AstrayError):
        return ConfigError(
            f"{shown(step.base_url)!r} is not a usable URL", hint="give http(s)://HOST:PORT/v1"
        )
    return _not_followed(step, "it is none", status)


def _not_followed(step: Exchange[Any], reason: str, status: int | None) -> ServerError:
    return RequestRejectedError(
        f"{shown(step.base_url)} redirects to an address that is not followed: {reason}",
        hint="check the base URL, and the server or proxy behind it",
        status=status,
    )


def _moved(step: Exchange[Any], url: str, status: int) -> ServerError:
    """The error of a question that a server sends elsewhere, where it would come as a GET."""
    target, asked = shown(url)[:200], f"/{step.request.path.partition('?')[0]}"
    base = target.removesuffix(asked)
    known = f"pass base_url={base!r} if that is your server"
    return RequestRejectedError(
        f"{shown(step.base_url)} redirects to {target!r} ({status}), where the question would "
        "come without its text",
        hint=known if base != target else "check the base URL; that may be a page for logging in",
        status=status,
    )


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    """Scheme, host and port, the default one written out."""
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
