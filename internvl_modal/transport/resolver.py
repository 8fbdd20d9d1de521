"""Names to addresses, in threads that neither an event loop's end nor the program's waits for.

``loop.getaddrinfo`` uses the loop's executor, whose threads are joined: a resolver that hangs would
hold up the interpreter's exit.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from internvl_modal._utils.daemon_thread import in_daemon

__all__ = ["Resolver"]

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Resolver(AbstractResolver):
    """The system's own resolver; what is awaited ends with whoever awaits it."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of ``host``; raises OSError."""
        sort, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
        ask = partial(socket.getaddrinfo, host, port, family=family, type=sort, flags=flags)
        found = await asyncio.wrap_future(in_daemon(ask))
        return [
            ResolveResult(
                hostname=host,
                host=_numeric(address),
                port=address[1],
                family=kind,
                proto=proto,
                flags=_NUMERIC,
            )
            for kind, _, proto, _, address in found
            if isinstance(address[0], str) and isinstance(address[1], int)
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _numeric(address: tuple[object, ...]) -> str:
    """The address as text, with the zone of a link-local one."""
    if len(address) > 2 and address[3]:
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        return socket.getnameinfo(address, numeric)[0]  # type: ignore[arg-type] # as it was given
    return str(address[0])
