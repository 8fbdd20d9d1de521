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
    Send,
    Sent,
    _build,
    _next_hop,
    _received,
    _translated,
    remaining,
)
from internvl_modal.transport.retry import Retry, _policy

T = TypeVar("T")


_DIRECT = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
"""Servers on this machine are reached without the environment's proxy, which cannot see them."""


class Transport:
    """Performs steps for ``Client``; closes its ``httpx.Client`` unless one was given."""

    def __init__(self, client: httpx.Client | None, retry: Retry) -> None:
        self._own = client is None
        self._client = client or self._new()
        self._process = os.getpid()
        self._retry = retry

    def _new(self) -> httpx.Client:
        client = httpx.Client(mounts=_DIRECT)
        weakref.finalize(self, client.close)
        return client

    def close(self) -> None:
        """Close the connections, unless the client was the user's."""
        if self._own:
            self._client.close()

    def send(self, step: Send[T]) -> Sent[T]:
        """Exchange and decode, again where that may help."""
        retrying = tenacity.Retrying(**_policy(step.retry or self._retry, step.deadline))
        return Sent(retrying(self._once, step), retrying.statistics["attempt_number"])

    @contextmanager
    def stream(self, step: Send[T]) -> Iterator[tuple[Sent[T], Iterator[bytes]]]:
        """Open a streamed answer, again where that may help, and give its chunks."""
        retrying = tenacity.Retrying(**_policy(step.retry or self._retry, step.deadline))
        response, value = retrying(self._begin, step)
        try:
            sent = Sent(value, retrying.statistics["attempt_number"])
            yield sent, self._chunks(response, step, begun=True)
        finally:
            response.close()

    def _once(self, step: Send[T]) -> T:
        response = self._open(step)
        try:
            return step.decode(_received(response, b"".join(self._chunks(response, step))))
        finally:
            response.close()

    def _begin(self, step: Send[T]) -> tuple[httpx.Response, T]:
        response = self._open(step)
        try:
            failed = response.status_code != 200
            body = b"".join(self._chunks(response, step)) if failed else b""
            return response, step.decode(_received(response, body))
        except BaseException:
            response.close()
            raise

    def _open(self, step: Send[Any]) -> httpx.Response:
        if self._own and self._process != os.getpid():  # forked: two must not share a connection
            self._client, self._process = self._new(), os.getpid()
        with _translated(step):
            request = _build(self._client, step)
            for hops in itertools.count(1):
                response = self._client.send(request, stream=True, follow_redirects=False)
                following = _next_hop(response, step, hops)
                if following is None:
                    return response
                response.close()
                request = following
        raise AssertionError("unreachable")

    def _chunks(
        self, response: httpx.Response, step: Send[Any], *, begun: bool = False
    ) -> Iterator[bytes]:
        with _translated(step, begun=begun):
            for chunk in response.iter_bytes():
                remaining(step.deadline)
                yield chunk
