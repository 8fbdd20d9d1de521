"""One exchange as values: what is asked, where it has got to, and what its failures mean.

Pure but for the clock: the redirect rules, what counts as sent, and what every failure means are
decided on values, and the two carriers differ in how bytes move and in nothing else.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from internvl_modal.errors import (
    ConfigError,
    DeadlineExceededError,
    RequestRejectedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.protocol.http import HttpRequest, HttpResponse
from internvl_modal.transport.retry import Retry

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
"""Seconds to connect, TLS included, or less where the deadline is nearer."""
MOST_REDIRECTS = 50
"""Modal answers a cold web request with a redirect every 150 s: 50 of them are two hours."""
ANSWER_BYTES = 2**20
"""Most of one answer whose length is not known; see ``Exchange.most``."""
EVENTS_BYTES = 8 * 2**20
"""Most of one that comes as events and is read whole."""
LIST_BYTES = 2 * 2**20
"""Most of an answer to a GET: the longest lists of models have about a MB."""
ERROR_BYTES = 2**16
"""What is read of an answer that is an error; the rest is left."""
SMALL = 2**14
LARGE = 4
"""Answers of more than SMALL bytes that a client takes in at the same time; others wait.

So that 64 under way, each as long as it may be, take little memory."""
STREAM_BYTES = 32 * 2**20
"""Most of one such stream: 100,000 tokens at the 250 bytes of an event."""
HEADER_BYTES = 100 * 1024
HEADERS = 1000
"""Most headers of one answer, and most bytes of all of them."""


@dataclass(frozen=True)
class Hop:
    """One request on the wire; ``deadline`` is in monotonic seconds.

    Its URL may be signed and its headers hold keys: neither is printed.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    deadline: float


@dataclass
class SoFar:
    """How far one exchange has got, over all its attempts.

    The only thing of an exchange that changes; it is shared by its attempts, and by nothing else.
    """

    hop: Hop | None = None
    """Where the answer was put by a server that redirected a POST to it with GET."""
    hops: int = 0
    lost: int = 0
    """Answers to a POST that were lost on the way."""
    over: bool = False
    """Whether another attempt cannot help, whatever the error says of itself."""


@dataclass(frozen=True)
class Exchange(Generic[T]):
    """One exchange: a request, how to read its answer, and when (monotonic seconds) to give up.

    Yielded by flows. ``decode`` is given every answer, errors included, and raises what they mean.
    """

    base_url: str
    request: HttpRequest
    decode: Callable[[HttpResponse], T]
    deadline: float
    retry: Retry | None = None
    """None: the client's own rule."""
    others: tuple[str, ...] = ()
    """Base URLs that would do as well."""
    most: int | None = None
    """Bytes of its answer, where that can be known; more is no answer to this request."""
    events: bool = False
    """Whether its answer comes as events, which take more bytes, and is read as a whole."""
    held: Callable[[], int] = field(default=lambda: 0, repr=False, compare=False)
    """Bytes of a streamed answer that its reader cannot make use of yet."""
    startup: tuple[float, float] | None = None
    """Seconds that a cold start takes there, at best and at worst, where that is known."""
    on_wait: Callable[[str], object] | None = field(default=None, repr=False, compare=False)
    """Is told, in the words of ``waiting``, that the answer will be put somewhere."""
    so_far: SoFar = field(default_factory=SoFar, repr=False, compare=False)


@dataclass(frozen=True)
class Exchanged(Generic[T]):
    """What came back, how many attempts it took, and how many of them a lost answer cost."""

    value: T
    attempts: int
    resent: int = 0


class Reply(Protocol):
    """An answer whose body is still to come; ``headers`` has lower-case names."""

    @property
    def status(self) -> int:
        """Of HTTP."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer; raises ServerError for more than HEADER_BYTES of them."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, its coding undone; raises BrokenError."""
        ...

    async def close(self) -> None:
        """Give the connection back if the body was read, else end it."""
        ...


class Carrier(Protocol):
    """Moves bytes; knows neither retries nor redirects."""

    async def open(self, hop: Hop) -> Reply:
        """Send ``hop`` and wait for the head of its answer; raises UnsentError or BrokenError."""
        ...

    async def close(self) -> None:
        """Close the connections, unless they are the user's."""
        ...


class UnsentError(Exception):
    """The request did not reach the server.

    Safe to send again: nobody has worked for it.
    """


class BrokenError(Exception):
    """The connection ended after the request may have reached the server, before its answer did.

    Whether the engine works on it cannot be known, so that asking again may cost twice.
    """


def remaining(deadline: float) -> float:
    """Seconds left; raises DeadlineExceededError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise out_of_time()
    return left


def out_of_time() -> DeadlineExceededError:
    """The error of a call whose time is up."""
    return DeadlineExceededError(
        "the call took longer than its timeout", hint="pass a larger timeout="
    )


def closed() -> ConfigError:
    """The error of a call on a closed client, or under way when it is closed."""
    return ConfigError("the client is closed", hint="make a new one")


def first_hop(step: Exchange[Any]) -> Hop:
    """The request of ``step``, or of the place where its answer was put; raises ConfigError.

    ``path`` may hold a query of its own; the base URL's user and password become a header.
    """
    # The engine has the question: only its answer is fetched again.
    if step.so_far.hop is not None:
        return step.so_far.hop
    # Before anything is sent, and without the value.
    for name, value in step.request.headers.items():
        if not (value.isascii() and value.isprintable()):  # a library would quote it, key and all
            raise ConfigError(
                f"the header {name!r} cannot be sent", hint="printable ASCII only; copy it again"
            )
    request, headers = step.request, dict(step.request.headers)
    try:
        parts = _checked(step.base_url)
    except ValueError as error:
        raise ConfigError(
            f"{shown(step.base_url)!r} is not a usable URL: {error}",
            hint="give http(s)://HOST:PORT/v1",
        ) from None
    if parts.username is not None and "authorization" not in map(str.lower, headers):
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    path = f"{parts.path.rstrip('/')}/{request.path}"  # before a query, which Azure has
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, fragment="").geturl()
    return Hop(request.method, url, headers, request.body, step.deadline)


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    # A redirect to file:// or to a host of spaces must not reach a library.
    if parts.scheme not in ("http", "https"):
        raise ValueError("it does not begin with http:// or https://")
    if not parts.hostname or any(c.isspace() or not c.isprintable() for c in parts.netloc):
        raise ValueError("it names no host")
    _ = parts.port  # raises ValueError for what is no port
    return parts


def shown(url: str) -> str:
    """``url`` for messages: without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2].partition("?")[0]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def next_hop(hop: Hop, reply: Reply, step: Exchange[Any]) -> Hop | None:
    """The request that a redirect asks for, without our keys when it leaves the origin.

    303 turns into GET, 307 and 308 repeat the body. Raises ServerError for one that is not
    followed: a 301 or 302 of a POST among them, which browsers turn into a GET without its body.
    """
    location = reply.headers.get("location")
    if reply.status not in (301, 302, 303, 307, 308) or not location:
        return None
    so_far, host = step.so_far, shown(step.base_url)
    so_far.hops += 1
    if so_far.hops >= MOST_REDIRECTS:
        raise ServerUnavailableError(f"{host} redirected {so_far.hops} times", hint="check the URL")
    try:
        url = urljoin(hop.url, location)
        parts = _checked(url)
        # Whoever redirects could make us log in somewhere under another name.
        if parts.username is not None or parts.password is not None:
            raise ValueError("it holds a user name or password")
        if parts.scheme == "http" and urlsplit(hop.url).scheme == "https":
            raise ValueError("it leaves https")
    except ValueError as error:
        raise ServerError(
            f"{host} redirects to an address that is not followed: {error}",
            hint="check the base URL, and the server or proxy behind it",
            status=reply.status,
        ) from None
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


def headers_over_limit() -> ServerError:
    """The error of an answer whose headers do not end in time to be some."""
    return ServerError(
        f"the answer has more than {HEADERS:,} headers, or {HEADER_BYTES // 1024} KiB of them",
        hint="check that the base URL is that of an OpenAI-compatible server",
    )


def waiting(step: Exchange[Any]) -> str:
    """What a call waits for that was sent elsewhere for its answer: at Modal, a cold start."""
    usual = ""
    if step.startup is not None:
        low, high = (max(1, round(seconds / 60)) for seconds in step.startup)
        minutes = f"{low}" if low == high else f"{low}-{high}"
        usual = f" (typically {minutes} min for this model)"
    return f"waiting for the GPU container{usual}"
