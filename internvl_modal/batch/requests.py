"""Ask about one picture: prepared in a thread, sent in a slot, again where it helps.

The client's own retry loop holds a request's place while it waits. In a batch the place is a slot,
and the wait must not take one from another picture; so each attempt is sent with a rule of one try,
and the waiting is done here, outside of the slot.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal.batch.answer_cache import AnswerCache
from internvl_modal.batch.answers import Answer, ask
from internvl_modal.batch.bundles import Bundler
from internvl_modal.batch.faults import is_shortage
from internvl_modal.batch.limiter import Limiter
from internvl_modal.batch.options import Job
from internvl_modal.batch.shrinking import Shrinking
from internvl_modal.batch.sources.keys import Item
from internvl_modal.captions.spend import SpendMeter
from internvl_modal.errors import (
    EmptyAnswerError,
    ImageError,
    ImageNotSeenError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.flows.core import Core
from internvl_modal.flows.discovery import Ready
from internvl_modal.flows.steps import adrive
from internvl_modal.transport.exchange import Exchange, Exchanged
from internvl_modal.transport.retry import Retry

Perform: TypeAlias = Callable[[Exchange[Any]], Awaitable[Exchanged[Any]]]
Calling: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""How a function that blocks is called without blocking."""

T = TypeVar("T")

THREADS = min(8, (os.cpu_count() or 1) + 2)
"""Pictures in preparation at once: decoding takes memory, fetching takes time."""
_ONCE = Retry(attempts=1)


@dataclass
class InFlight:
    """An input on its way; of one task."""

    index: int
    item: Item
    attempts: int = 0
    waited: float = 0.0
    """Seconds in which it was not being asked, and which cost its deadline nothing."""
    sending: bool = False
    """From the moment a request is sent until its answer is recorded or it is put off.

    Decides whether a stop waits for it or gives it up.
    """


class Requester:
    """Asks the same of every picture; ``limiter`` is set once the endpoint is known.

    Preparing has threads, sending has the event loop; ``limiter`` has both in view.
    """

    limiter: Limiter
    spend: SpendMeter | None = None
    """Is asked before each request, where money is limited."""
    on_wait: Callable[[str], object] | None = None
    """Is told what everything waits for while a container starts."""

    def __init__(
        self, core: Core, exchange: Perform, retry: Retry, job: Job, threads: Executor
    ) -> None:
        self._core, self._exchange, self._retry, self._job = core, exchange, retry, job
        self._bundler = Bundler(threads)
        self._known = AnswerCache() if job.settings.dedupe else None
        self._shrinking = Shrinking(job.checked, THREADS, same=job.settings.dedupe)

    def close(self) -> None:
        """Forget the answers."""
        if self._known is not None:
            self._known.close()

    async def ready(self) -> Ready:
        """Start the backend and learn what answers there.

        A start may download for hours: it has a thread that the interpreter does not wait for.
        """
        return await adrive(self._core.ready(), self._exchange, _in_daemon)

    async def describe(self, ticket: InFlight, halt: asyncio.Event) -> list[Answer]:
        """Ask all prompts about one picture; nothing more is sent once ``halt`` is set."""

        async def exchange(step: Exchange[Any]) -> Exchanged[Any]:
            if self._known is None or not step.request.body:
                return await self._insist(step, ticket, halt)
            return await self._known.answer(step, lambda: self._insist(step, ticket, halt))

        job, item = self._job, ticket.item
        if isinstance(item.source, list | tuple) and not item.source:
            raise ImageError("holds no picture", source=item.key)
        # A new flow each time: what ran out may have stopped it anywhere.
        for attempt in itertools.count(1):
            options = self._shrinking.options()
            flow = ask(self._core, item, job, options)
            try:
                found = await adrive(flow, exchange, self._bundler.call)
                first = found[0].description
                prepared = first.timings.prepare if first is not None else 0.0
                limiter = self.limiter
                self._shrinking.answered(prepared, limiter.waits, limiter.under_way)
                return found
            # Threads and memory run out in errors of Python's own.
            except Exception as error:
                if self._shrinking.is_own(options) and _is_refusal(error):
                    self._shrinking.refused()
                    continue
                pause = self._short_pause(error, attempt)
                if pause is None or halt.is_set():
                    raise
            ticket.sending = False
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _short_pause(self, error: Exception, attempt: int) -> float | None:
        """Seconds until there may be descriptors again, with less going on at once; None: raise."""
        if not is_shortage(error):
            return None
        self.limiter.ease()
        return self._retry.pause(attempt, ServerUnavailableError(str(error)), math.inf)

    async def _insist(
        self, step: Exchange[T], ticket: InFlight, halt: asyncio.Event
    ) -> Exchanged[T]:
        """Perform, again where that may help; waiting for a slot costs the deadline nothing."""
        since, begun, tries = 0.0, 0.0, 0
        budget = step.deadline + ticket.waited - time.monotonic()
        idle = time.monotonic()
        while True:
            try:
                async with self.limiter.slot():
                    if self.spend is not None and not self.spend.may_send():
                        raise self.spend.exhausted()
                    if halt.is_set():
                        raise asyncio.CancelledError
                    # Within the slot: a picture that has waited an hour for its turn has all its
                    # time left.
                    begun = time.monotonic()
                    ticket.waited += begun - idle
                    since = since or begun
                    ticket.attempts += 1
                    tries += 1  # of this question: the rule counts each by itself
                    ticket.sending = True
                    with self.spend.request() if self.spend is not None else nullcontext():
                        sent = await self._exchange(self._once(step, begun + budget))
                if sent.attempts == ticket.attempts:  # as nearly always
                    return sent
                return replace(sent, attempts=ticket.attempts)
            except ServerError as error:
                # Only the time in which it was being asked counts.
                idle = time.monotonic()
                budget -= idle - begun
                pause = self._pause(step, error, tries, since, budget)
                if pause is None:
                    raise
            ticket.sending = False
            await asyncio.sleep(pause)

    def _once(self, step: Exchange[T], deadline: float) -> Exchange[T]:
        return replace(step, deadline=deadline, retry=_ONCE, on_wait=self.on_wait)

    def _pause(
        self, step: Exchange[Any], error: ServerError, attempts: int, since: float, budget: float
    ) -> float | None:
        """The rule's, but that what the server only put off counts as no attempt for a while."""
        if budget <= 0 or step.so_far.over:
            return None
        if isinstance(error, EmptyAnswerError) and self._job.gate.climbs:
            return None  # the ladder asks in another way
        rule = self._retry
        put_off = isinstance(error, RateLimitedError) or error.status == 503
        patience = self._job.checked.timeout or self._core.timeout
        if put_off and time.monotonic() < since + patience:
            rule = replace(rule, attempts=attempts + 1)
        if put_off:  # the limiter makes all of them wait as long as the server asks
            error = copy.copy(error)
            # All wait in the limiter already, and would wait twice.
            error.retry_after = None
        return rule.pause(attempts, error, math.inf, lost=step.so_far.lost)


def _is_refusal(error: Exception) -> bool:
    """Whether a server would not have a picture, which it may have smaller."""
    return isinstance(error, RequestRejectedError | ImageNotSeenError)


def _in_daemon(function: Callable[[], Any]) -> Awaitable[Any]:
    return asyncio.wrap_future(in_daemon(function))
