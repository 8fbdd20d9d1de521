"""Bytes over aiohttp's connection pool: how every client of this package sends by itself.

aiohttp and not httpx: at 64 requests in flight, 300 KB each, it takes 0.4 ms of CPU a request where
httpx 0.28 takes 9 to 12, because of a quadratic scan in httpcore 1.0.9.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from yarl import URL

from internvl_modal.errors import ConfigError
from internvl_modal.transport.coding import Decoder
from internvl_modal.transport.environment import SOCKS, certificates, is_local, proxy_for
from internvl_modal.transport.exchange import (
    CONNECT_TIMEOUT,
    HEADER_BYTES,
    HEADERS,
    SMALL,
    BrokenError,
    Hop,
    UnsentError,
    UnusableError,
    headers_over_limit,
)
from internvl_modal.transport.resolver import Resolver

PIECE = 2**20
"""Bytes; larger bodies are sent in pieces of it, so that the event loop is not held up."""
_ALWAYS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "internvl-modal"}
_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)
_BROKEN = (aiohttp.ClientError, HttpProcessingError, OSError, asyncio.TimeoutError)


class Pool:
    """Connections of one event loop, without a limit on how many, kept alive between requests.

    No limit: the batch's limiter decides how many requests are open, and a second queue would hide
    from it how long they take. One for each event loop.
    """

    def __init__(self) -> None:
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}
        self._trusted: ssl.SSLContext | None = None
        self._looked_up: set[str] = set()

    async def close(self) -> None:
        """Close the connections."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def open(self, hop: Hop) -> Answer:
        """Send ``hop`` and wait for the head of its answer; raises as ``Carrier`` says."""
        url = _url(hop.url)
        proxy = proxy_for(hop.url)
        socks = proxy if proxy and proxy.startswith(SOCKS) else None
        headers = {**_ALWAYS, **hop.headers}
        once = headers.get("connection") == "close"  # aiohttp itself waits for the server to say so
        session = self._sessions.get((socks, once)) or self._new(socks, once=once)
        # aiohttp writes bytes at once and would copy them; it warns about large ones, rightly.
        large = len(hop.body) > PIECE
        if large:
            headers["content-length"] = str(len(hop.body))
        if socks:
            await self._look_up(URL(socks).host, None if _remote(socks) else url.host)
        with _OPENING:
            response = await session.request(
                hop.method,
                url,
                headers=headers,
                data=_pieces(hop.body) if large else hop.body or None,
                allow_redirects=False,
                proxy=None if socks else proxy,
                ssl=self._trust(url, proxy),
            )
        return Answer(response)

    def _new(self, socks: str | None, *, once: bool) -> aiohttp.ClientSession:
        """A session for a SOCKS proxy or none, and for connections that are used once or kept."""
        connector = (
            _socks_connector(socks)
            if socks
            else aiohttp.TCPConnector(limit=0, force_close=once, resolver=Resolver())
        )
        session = aiohttp.ClientSession(
            connector=connector,
            # A router's cookie would tie all requests to one machine.
            cookie_jar=aiohttp.DummyCookieJar(),
            # ``coding`` does it in counted pieces.
            auto_decompress=False,
            read_bufsize=SMALL,
            skip_auto_headers=["content-type"],
            # The whole call has a deadline; only connecting has a limit of its own.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS,
        )
        session._retry_connection = False  # the rule says when to ask again, and logs it
        self._sessions[socks, once] = session
        return session

    async def _look_up(self, *names: str | None) -> None:
        """Wait until the names that a SOCKS proxy needs are known, or known to be none.

        aiohttp_socks asks in the loop's own threads, which the program's end waits for: it must
        not be the first to ask a name server that never answers.
        """
        for name in names:
            if name is not None and name not in self._looked_up:
                with suppress(OSError):  # told by the connection itself
                    await Resolver().resolve(name, family=socket.AF_UNSPEC)
                self._looked_up.add(name)

    def _trust(self, url: URL, proxy: str | None) -> ssl.SSLContext | bool:
        """Certificates; a server on this machine has none that the environment could break."""
        if url.scheme == "http" and not (proxy and proxy.startswith("https")):
            return True
        # A broken SSL_CERT_FILE must not keep anybody from a server on this machine.
        if is_local(url.host or "") and self._trusted is None:
            return True
        self._trusted = self._trusted or certificates()
        return self._trusted


def _url(url: str) -> URL:
    """As it is where it can be: a server's own quoting may be part of a signature."""
    try:
        plain = url.isascii() and url.split() == [url]
        return URL(url, encoded=plain)
    except ValueError:
        raise UnusableError from None


def _socks_connector(proxy: str) -> aiohttp.BaseConnector:
    try:
        from aiohttp_socks import ProxyConnector
    except ImportError:
        raise ConfigError(
            "a variable such as ALL_PROXY names a SOCKS proxy",
            hint="pip install 'internvl-modal[socks]', or unset it",
        ) from None
    made: aiohttp.BaseConnector = ProxyConnector.from_url(
        proxy.replace("socks5h", "socks5", 1), rdns=_remote(proxy), limit=0
    )
    return made


def _remote(proxy: str) -> bool:
    """Whether the proxy resolves names; with socks5 this machine does, as curl has it."""
    return proxy.startswith(("socks5h", "socks4"))


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """The body in steps, between which other requests get their turn."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


class Answer:
    """An answer whose body is still to come.

    Of one request; read by one task. ``status`` and ``headers`` are there at once.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._decoder: Decoder | None = None
        self.status = response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names; raises ServerError for more than HEADER_BYTES of them."""
        if sum(len(n) + len(v) for n, v in self._response.raw_headers) > HEADER_BYTES:
            raise headers_over_limit()
        return {name.lower(): value for name, value in self._response.headers.items()}

    async def read(self) -> bytes:
        """The next piece of the body, its coding undone, empty at the end; raises BrokenError."""
        if self._decoder is None:
            coding = ", ".join(self._response.headers.getall("content-encoding", ()))
            self._decoder = Decoder(coding, partial(self._response.content.read, SMALL))
        with _READING:
            return await self._decoder.read()

    async def close(self) -> None:
        """Give the connection back if the body was read, else end it."""
        self._response.close()


class _Told:
    """Turns aiohttp's errors into the two that matter: sent for certain not, or perhaps.

    Its errors hold the request with its keys, and what a server said in place of HTTP; so only
    those of the system are named as the cause. ``opening``: a URL that is none is told by what
    aiohttp and Python's resolver say of one while it is sent.
    """

    def __init__(self, *, opening: bool) -> None:
        self._opening = opening

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, _UNSENT):
            raise UnsentError(_words(error)) from error
        if isinstance(error, aiohttp.InvalidURL):
            raise UnusableError from None
        if isinstance(error, _BROKEN):
            if _over_limit(error):
                raise headers_over_limit() from None
            raise BrokenError(_words(error)) from (error if isinstance(error, OSError) else None)
        if self._opening and isinstance(error, ValueError):
            raise UnusableError from None


_OPENING, _READING = _Told(opening=True), _Told(opening=False)


def _over_limit(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, LineTooLong) or str(error).find("Too many headers") >= 0:
            return True
        error = error.__cause__
    return False


def _words(error: Exception) -> str:
    """What went wrong, without the proxy's URL, which may hold its password."""
    if isinstance(error, aiohttp.ClientResponseError):
        # What stands behind a colon is the server's, and may be our own headers.
        return " ".join(error.message.partition(":")[0].split())[:200]
    if isinstance(error, aiohttp.ClientPayloadError | HttpProcessingError):
        return "the answer ended early, or is no HTTP"
    return " ".join(str(error).split())[:200] or type(error).__name__
