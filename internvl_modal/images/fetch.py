"""Download a picture without being led into a private network, in the time that it is given.

Every hop is resolved once, all its addresses are judged, and the connection goes to an address
that was judged: a name that changes between check and use gains nothing.

Only for pictures: a server's answers come by ``transport``. Here the address is a stranger's and
the bytes are unknown; there both are the user's own server.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as LookUpTimeout
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn

import httpx

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal._utils.local_trouble import is_local_trouble
from internvl_modal.errors import ImageError, OutOfResourcesError
from internvl_modal.images.addresses import forbidden
from internvl_modal.images.alarm import Alarm
from internvl_modal.images.names import url_name
from internvl_modal.images.sources import URL_BYTES

if TYPE_CHECKING:
    import ssl

REDIRECTS = 5
TRIES = 5
"""With waits of 0.5, 1, 2 and 4 seconds, each by up to half shorter."""
PAGE = "https://pypi.org/project/internvl-modal/"
"""Where the owner of a server reads what asks there; it is there wherever this package is."""
_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Statuses that pass: a server that is busy, starting or behind a proxy that lost it."""
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0


@dataclass(frozen=True)
class _Job:
    """One download and its limits."""

    name: str
    seconds: float
    deadline: float
    """On the monotonic clock, for all tries and hops together."""
    max_bytes: int
    allow_private: bool
    user_agent: str

    def left(self) -> float:
        """Seconds until the deadline; raises TimeoutError at it."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def refused(self, what: str, hint: str = "") -> ImageError:
        return ImageError(what, source=self.name, hint=hint)


class _TryAgainError(Exception):
    """What may be over soon; ``after`` is in seconds, where the server names them."""

    def __init__(self, error: ImageError, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


def fetch(
    url: str,
    *,
    timeout: float,
    max_bytes: int = URL_BYTES,
    allow_private: bool = False,
    user_agent: str | None = None,
) -> bytes:
    """The body behind an http(s) URL; raises ImageError, or OutOfResourcesError.

    ``timeout`` is in seconds for everything together: names, handshakes, redirects, tries, and
    servers that trickle. Asked again on 408, 425, 429 and 5xx, as ``Retry-After`` says, on broken
    connections, and where nothing came for half of the time. Proxies of the environment are not
    used: they would resolve names themselves.
    """
    end, agent = time.monotonic() + timeout, user_agent or default_user_agent()
    job = _Job(url_name(url), timeout, end, max_bytes, allow_private, agent)
    with Alarm(timeout) as alarm:
        try:
            return _persist(url, job, alarm)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise job.refused("not a URL that can be read") from error
        except (httpx.HTTPError, OSError) as error:
            _explain(error, job, alarm)


def _explain(error: Exception, job: _Job, alarm: Alarm) -> NoReturn:
    """Raise what a failure means to the caller: this machine, the time, or the address."""
    if is_local_trouble(error):
        hint = "prepare fewer pictures at once, or raise the limit (ulimit -n)"
        raise OutOfResourcesError(f"{job.name}: cannot be fetched: {error}", hint=hint) from error
    if alarm.rang or isinstance(error, (httpx.TimeoutException, TimeoutError)):
        hint = "try again, raise the timeout, or download it yourself"
        raise job.refused(f"not there within {job.seconds:g} s", hint) from error
    detail = str(error) or type(error).__name__
    raise job.refused(f"cannot be fetched: {detail:.200}") from error


def _persist(url: str, job: _Job, alarm: Alarm) -> bytes:
    """Try, and try again while there is time and hope."""
    # Each attempt resolves and judges anew: the first answer may have been of a name server in
    # trouble.
    for attempt in range(1, TRIES + 1):
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311  # nosec B311  # jitter
        try:
            return _follow(httpx.URL(url), job, alarm)
        # The server's own wish counts where it is longer than our wait.
        except _TryAgainError as trouble:
            wait = max(wait, trouble.after or 0)
            if attempt == TRIES or wait >= job.deadline - time.monotonic():
                raise trouble.error from trouble
        except (httpx.TransportError, OSError) as error:
            late = alarm.rang or wait >= job.deadline - time.monotonic()
            if attempt == TRIES or late or is_local_trouble(error) or not _may_pass(error):
                raise
        time.sleep(wait)
    raise AssertionError("unreachable")


def _may_pass(error: Exception) -> bool:
    """Whether the same request may do better: not where nobody listens or a certificate is bad."""
    passing = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout)
    return isinstance(error, passing)


def _follow(target: httpx.URL, job: _Job, alarm: Alarm) -> bytes:
    """Hop by hop, since every target is a stranger's and is judged like the first."""
    for _ in range(REDIRECTS + 1):
        answer = _get(target, job, alarm)
        if isinstance(answer, bytes):
            return answer
        target = answer
    raise job.refused(f"more than {REDIRECTS} redirects", "give the last address")


def _get(url: httpx.URL, job: _Job, alarm: Alarm) -> bytes | httpx.URL:
    """One hop: the body, or where it redirects to.

    Below ``httpx.Client``, which would log the whole URL, password and query included.
    """
    # The connection goes to one of these: httpx gets an address, and the name only for TLS and
    # Host.
    addresses = _resolve(url, job)
    limits = httpx.Limits(max_keepalive_connections=0)  # else hosts could share a connection
    with httpx.HTTPTransport(trust_env=False, verify=_certificates(), limits=limits) as transport:
        for last, address in enumerate(addresses, 1 - len(addresses)):
            try:
                response = transport.handle_request(_request(url, address, job, alarm))
            # Where one address is dead the next may live: IPv6 without a route is common.
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if last == 0:
                    raise
                continue
            with closing(response):
                if response.has_redirect_location:
                    return url.join(response.headers["location"])
                return _read(response, job)
    raise job.refused("the host has no address")


def _resolve(url: httpx.URL, job: _Job) -> list[str]:
    """The addresses of a URL's host, each judged."""
    host = url.raw_host.decode("ascii")
    if url.scheme not in ("http", "https"):
        hint = "only http and https URLs are fetched"
        raise job.refused(f"leads to a {url.scheme or 'relative'} URL", hint)
    if not host:
        raise job.refused("a URL without a host", "check the address")
    # httpx knows no default port of a URL without one.
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = _look_up(host, port, job.left())
    except socket.gaierror as error:
        refusal = job.refused(f"the host {host!r} is not known")
        # The name server did not answer, which may be over soon; a name that is not there stays so.
        if error.errno == socket.EAI_AGAIN:
            raise _TryAgainError(refusal) from error
        raise refusal from error
    # One address that is forbidden refuses them all: which one is taken must not depend on luck.
    addresses = list(dict.fromkeys(found))
    for address in addresses:
        reason = None if job.allow_private else forbidden(ip_address(address))
        if reason:
            hint = "pass allow_private_urls=True if you trust this URL"
            raise job.refused(f"leads to {reason} ({host})", hint)
    return addresses


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """Addresses of a name; raises TimeoutError when the resolver does not say them in time."""

    def ask() -> list[str]:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=kind)]

    kind = socket.SOCK_STREAM
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        try:
            return in_daemon(ask).result(seconds)
        except LookUpTimeout as error:  # before Python 3.11 a class of its own
            raise TimeoutError from error
    return ask()


def _request(url: httpx.URL, address: str, job: _Job, alarm: Alarm) -> httpx.Request:
    """One GET to an address, with the name where servers and certificates look for it."""
    left = job.left()
    # Half of the time at most without a byte, so that there is time to try again.
    silence = max(job.seconds / 2, 0.05)
    timeout = httpx.Timeout(min(left, silence), connect=min(left, 10.0))
    request = httpx.Request(
        "GET",
        url.copy_with(host=address),
        headers={
            "Host": url.netloc.decode("ascii"),
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": job.user_agent,
        },
        extensions={
            "sni_hostname": url.raw_host.decode("ascii"),
            "timeout": timeout.as_dict(),
            "trace": alarm.watch,
        },
    )
    if url.userinfo:
        next(httpx.BasicAuth(url.username, url.password).auth_flow(request))  # adds its header
    return request


def _read(response: httpx.Response, job: _Job) -> bytes:
    """The body, counted as it comes: a server may announce little and send much."""
    _check_answer(response, job)
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > job.max_bytes:
            raise _too_large(job)
        job.left()
    job.left()  # a connection that the alarm has cut can look like the end of the body
    return bytes(body)


def _check_answer(response: httpx.Response, job: _Job) -> None:
    """Refuse what is no picture's bytes, before they are read; raises
    ``_TryAgainError`` for busy.
    """
    status, headers = response.status_code, response.headers
    if status in _AGAIN:
        raise _TryAgainError(job.refused(f"the server answers {status}"), _retry_after(headers))
    if status not in (200, 203):
        hint = "the address may need a login or have expired" if response.is_client_error else ""
        raise job.refused(f"the server answers {status}", hint)
    coding = headers.get("content-encoding", "").strip().lower()
    # A coding can unpack a gigabyte out of a megabyte, and no picture gains by one.
    if coding not in ("", "identity"):
        hint = "it was asked for as it is; download it yourself"
        raise job.refused(f"sent in the coding {coding[:40]!r}", hint)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > job.max_bytes:
        raise _too_large(job)


def _too_large(job: _Job) -> ImageError:
    return job.refused(f"larger than {job.max_bytes:,} bytes", "download and shrink it yourself")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, given as such or as a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Loaded once: it takes longer than a small picture."""
    return httpx.create_ssl_context()


@lru_cache(maxsize=1)
def default_user_agent() -> str:
    """The package, its version, and a page that says what it is.

    Sites such as Wikimedia refuse clients that do not say who they are.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"internvl-modal/{version('internvl-modal')} (+{PAGE})"
    except PackageNotFoundError:
        return f"internvl-modal (+{PAGE})"
