"""One exchange as values: what is asked, where it has got to, and what its failures mean.

Pure but for the clock: the redirect rules, what counts as sent, and what every failure means are
decided on values, and the two carriers differ in how bytes move and in nothing else.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from internvl_modal.errors import (
    ConfigError,
    DeadlineExceededError,
    ServerError,
)
from internvl_modal.protocol.http import HttpRequest, HttpResponse
from internvl_modal.transport.retry import Retry

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
"""Seconds to connect, TLS included, or less where the deadline is nearer."""
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

    async def read(self) -> bytes:
        """The next piece of the body, its coding undone, empty at the end; raises BrokenError."""
        ...

    async def close(self) -> None:
        """Give the connection back if the body was read, else end it."""
        ...


class Carrier(Protocol):
    """Moves bytes; knows neither retries nor redirects."""

    async def open(self, hop: Hop) -> Reply:
        """Send ``hop`` and wait for the head of its answer.

        Raises UnsentError, BrokenError or UnusableError.
        """
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


class UnusableError(Exception):
    """No request can be made of the URL, whatever it looks like."""


class AstrayError(UnusableError):
    """Nor of the one that the answer to a request leads to."""


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
        url, login = _address(step.base_url, request.path)
    except ValueError as error:
        raise ConfigError(
            f"{shown(step.base_url)!r} is not a usable URL: {error}",
            hint="give http(s)://HOST:PORT/v1",
        ) from None
    if login and "authorization" not in map(str.lower, headers):
        headers["authorization"] = login
    return Hop(request.method, url, headers, request.body, step.deadline)


@lru_cache(maxsize=64)  # a batch asks the same of all
def _address(base_url: str, path: str) -> tuple[str, str]:
    """Where a request goes, and what its user and password make of ``authorization``, or "".

    Raises ValueError.
    """
    parts, login = checked(base_url), ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = f"Basic {b64encode(pair.encode()).decode()}"
    path = f"{parts.path.rstrip('/')}/{path}"  # before a query, which Azure has
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, fragment="").geturl()
    return url, login


def checked(url: str) -> SplitResult:
    """The parts of a URL that a request can be made of; raises ValueError with the reason."""
    parts = urlsplit(url)
    # A redirect to file:// or to a host of spaces must not reach a library.
    if parts.scheme not in ("http", "https"):
        raise ValueError("it does not begin with http:// or https://")
    host = parts.hostname or ""
    # Longer or empty labels are no names, and Python's resolver raises what is no error of ours.
    labels = (host[:-1] if host.endswith(".") else host).split(".")
    named = all(0 < len(label) < 64 for label in labels) or ":" in host
    if not named or any(c.isspace() or not c.isprintable() for c in parts.netloc):
        raise ValueError("it names no host")
    if any(c < " " or c == "\x7f" for c in url):
        raise ValueError("it holds control characters")
    _ = parts.port  # raises ValueError for what is no port
    return parts


def shown(url: str) -> str:
    """``url`` for messages: without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2].partition("?")[0]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


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
