"""HTTP over httpx, for ``Client``."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import tenacity

from internvl_modal.transport.exchange import (
    Exchange,
    Exchanged,
    build_request,
    next_hop,
    received,
    remaining,
    translated,
)
from internvl_modal.transport.retry import Retry, policy

T = TypeVar("T")


DIRECT = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
"""Servers on this machine are reached without the environment's proxy, which cannot see them."""


class Transport:
    """Performs steps for ``Client``; closes its ``httpx.Client`` unless one was given."""

    def __init__(self, client: httpx.Client | None, retry: Retry) -> None:
        self._own = client is None
        self._client = client or self._new()
        self._process = os.getpid()
        self._retry = retry

    def _new(self) -> httpx.Client:
        client = httpx.Client(mounts=DIRECT)
        weakref.finalize(self, client.close)
        return client

    def close(self) -> None:
        """Close the connections, unless the client was the user's."""
        if self._own:
            self._client.close()

    def send(self, step: Exchange[T]) -> Exchanged[T]:
        """Exchange and decode, again where that may help."""
        retrying = tenacity.Retrying(**policy(step.retry or self._retry, step.deadline))
        return Exchanged(retrying(self._once, step), retrying.statistics["attempt_number"])

    @contextmanager
    def stream(self, step: Exchange[T]) -> Iterator[tuple[Exchanged[T], Iterator[bytes]]]:
        """Open a streamed answer, again where that may help, and give its chunks."""
        retrying = tenacity.Retrying(**policy(step.retry or self._retry, step.deadline))
        response, value = retrying(self._begin, step)
        try:
            sent = Exchanged(value, retrying.statistics["attempt_number"])
            yield sent, self._chunks(response, step, begun=True)
        finally:
            response.close()

    def _once(self, step: Exchange[T]) -> T:
        response = self._open(step)
        try:
            return step.decode(received(response, b"".join(self._chunks(response, step))))
        finally:
            response.close()

    def _begin(self, step: Exchange[T]) -> tuple[httpx.Response, T]:
        response = self._open(step)
        try:
            failed = response.status_code != 200
            body = b"".join(self._chunks(response, step)) if failed else b""
            return response, step.decode(received(response, body))
        except BaseException:
            response.close()
            raise

    def _open(self, step: Exchange[Any]) -> httpx.Response:
        if self._own and self._process != os.getpid():  # forked: two must not share a connection
            self._client, self._process = self._new(), os.getpid()
        with translated(step):
            request = build_request(self._client, step)
            for hops in itertools.count(1):
                response = self._client.send(request, stream=True, follow_redirects=False)
                following = next_hop(response, step, hops)
                if following is None:
                    return response
                response.close()
                request = following
        raise AssertionError("unreachable")

    def _chunks(
        self, response: httpx.Response, step: Exchange[Any], *, begun: bool = False
    ) -> Iterator[bytes]:
        with translated(step, begun=begun):
            for chunk in response.iter_bytes():
                remaining(step.deadline)
                yield chunk
