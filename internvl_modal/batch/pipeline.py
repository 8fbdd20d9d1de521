"""The pipeline of a batch: read, prepare, send, write; each stage waits for the next.

One task reads and admits, each admitted picture is a task, one task writes; the caller takes.

Memory is bounded at every stage: so many pictures are in preparation, so many at the server, so
many done and not written, so many written and not taken. A slow caller, disk or server holds up
what lies before it, and a folder of a million files is never a list.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from internvl_modal.batch.answers import Answer, outcome_of
from internvl_modal.batch.bundles import contained
from internvl_modal.batch.imported import Imported
from internvl_modal.batch.judge import Judge
from internvl_modal.batch.limiter import Limiter
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.progress import BatchProgress, ProgressMeter
from internvl_modal.batch.prompts import Filler
from internvl_modal.batch.requests import THREADS, InFlight, Perform, Requester
from internvl_modal.batch.sinks.base import SYNC_SECONDS, SeenKeys
from internvl_modal.batch.sinks.choose import sink_for
from internvl_modal.batch.sources.counting import Counting
from internvl_modal.batch.sources.inputs import Images, check_choice
from internvl_modal.batch.sources.keys import Item, Naming
from internvl_modal.batch.sources.read_ahead import End, items
from internvl_modal.batch.spending import guard, left_of, price_of
from internvl_modal.errors import InternVLError, SpendLimitError
from internvl_modal.flows.core import Core
from internvl_modal.transport.retry import Retry

__all__ = ["InFlight", "Run"]

COUNT_SECONDS = 10.0
"""What a projection waits for the count of the whole source."""

MOST = 64
"""Requests at once that "auto" may reach where nothing else says how many.

LMDeploy's documented batch for large GPUs is more; its preprocessing thread is full before.
"""


GATHER = 0.02
"""Seconds that what is done waits for more of it: each change of threads costs 0.1 ms, as much as
preparing a small picture, and so there is one for all of them."""


class Run:
    """One batch, in the event loop it was made in: ``take`` until it is empty, then ``close``.

    Not safe for several loops. An error is kept, and raised by ``take`` after the last outcome.
    """

    def __init__(
        self, core: Core, exchange: Perform, retry: Retry, images: Images, job: Job
    ) -> None:
        self._core, self._images, self._job = core, images, job
        check_choice(images, job.choice)
        self._counting = Counting(images, job.choice)
        self._imported = Imported(job)
        self._sink = sink_for(job, images)
        self._threads = ThreadPoolExecutor(THREADS, "internvl-prepare")
        self._requester = Requester(core, exchange, retry, job, self._threads)
        # One thread: sinks need no locks, and lines are written in one piece.
        self._writer = ThreadPoolExecutor(1, "internvl-write")
        self._done: asyncio.Queue[tuple[int, Outcome] | None] = asyncio.Queue()
        self._written: deque[Outcome] = deque()
        self._tickets: dict[asyncio.Task[None], InFlight] = {}
        self._news, self._halt = asyncio.Event(), asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._numbers: Callable[[], BatchProgress] = BatchProgress
        self._grace = 0.0
        self._judge = Judge(job.settings, self.remembers, self._done.put_nowait, self._end)

    @property
    def remembers(self) -> bool:
        """Whether the same call goes on where this one ends."""
        return isinstance(self._sink, SeenKeys)

    @property
    def progress(self) -> BatchProgress:
        """How far it is."""
        return self._numbers()

    async def take(self) -> list[Outcome]:
        """Outcomes that are written, one or more; none at the end. Raises what stopped it."""
        if self._main is None:
            self._main = asyncio.create_task(self._run())
        while not self._written and not self._main.done():
            self._news.clear()
            waiting = asyncio.create_task(self._news.wait())
            await asyncio.wait({waiting, self._main}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        taken = list(self._written)
        self._written.clear()
        for _ in taken:
            self._window.release()
        if not taken:
            await self._main
            if self._error is not None:
                raise self._error
        return taken

    async def stop(self) -> None:
        """Begin nothing more, give what is under way its grace, write it."""
        self._end(
            InternVLError(
                "the batch was stopped",
                hint="the same call goes on from there" if self.remembers else "",
            ),
            self._job.settings.grace,
        )
        if self._main is not None:
            await asyncio.wait({self._main})

    async def close(self) -> None:
        """Give up what is under way; what is done is written already or is now."""
        # First: no task may begin a request that nobody will wait for.
        self._halt.set()
        for task in self._tickets:
            task.cancel()
        if self._main is not None:
            await asyncio.wait({self._main})
        self._counting.close()
        self._imported.close()
        self._requester.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False)

    def _end(self, error: BaseException, grace: float = 0.0) -> None:
        if not self._halt.is_set():
            self._error, self._grace = error, grace
            self._halt.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What is no Exception, such as a callback's ``sys.exit``, ends the batch and is raised."""
        self._tickets.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    async def _run(self) -> None:
        """From the first question to the last line."""
        loop = asyncio.get_running_loop()
        try:
            opening = await self._unless_halted(self._open())
            if not opening.cancelled():
                # Raises what opening raised, such as a server that is not there.
                opening.result()
                writing = asyncio.create_task(self._write())
                writing.add_done_callback(self._ended)
                await self._until_done()
                if not self._halt.is_set():
                    self._judge.finish()
                self._done.put_nowait(None)
                await writing
                if self._job.part.is_part:
                    await self._counted()
                self._meter.close(self._limiter.limit)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised where outcomes are taken
            self._error = self._error or error
        finally:
            try:
                await loop.run_in_executor(self._writer, self._sink.close)
            except Exception as error:  # noqa: BLE001 - the same
                self._error = self._error or error

    async def _counted(self) -> None:
        """Wait a while for what a projection is made for."""
        counting = self._counting.under_way
        if counting is not None and not self._halt.is_set():
            await asyncio.wait({asyncio.wrap_future(counting)}, timeout=COUNT_SECONDS)

    async def _unless_halted(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The task of ``work``, at its end; cancelled where something ended the batch before."""
        working = asyncio.create_task(work)
        halted = asyncio.create_task(self._halt.wait())
        await asyncio.wait({working, halted}, return_when=asyncio.FIRST_COMPLETED)
        halted.cancel()
        working.cancel()
        await asyncio.wait({working})
        return working

    async def _open(self) -> None:
        """Learn what answers, and what of the output is there."""
        job, settings = self._job, self._job.settings
        ready = await self._requester.ready()
        run = job.run(ready.model)
        loop = asyncio.get_running_loop()
        self._sink.told(ready.endpoint)
        await loop.run_in_executor(self._writer, self._sink.open, run)
        await loop.run_in_executor(self._writer, self._imported.load)
        fixed = None if settings.concurrency == "auto" else settings.concurrency
        endpoint = ready.endpoint
        known = [most for most in (settings.max_concurrency, endpoint.sessions) if most]
        # The caller's limit or the server's own, whichever is less.
        servers = 1 + len(endpoint.others)
        most = fixed or min(known, default=MOST * servers)
        self._limiter = self._requester.limiter = Limiter(fixed, most, THREADS, servers)
        # Four times what can be under way: order can be restored over so many, and the caller may
        # lag.
        self._window = asyncio.Semaphore(4 * (most + THREADS))
        self._counting.start()
        if settings.max_usd is not None:
            await self._counted()
        whole = job.part.of(self._counting.total)
        self._requester.spend = guard(job, endpoint, most, left_of(whole, self._sink))
        self._meter = ProgressMeter(
            settings.progress, lambda: self._counting.total, price_of(job, endpoint), job.part
        )
        self._numbers = lambda: self._meter.now(self._limiter.limit)
        self._requester.on_wait = lambda words: self._meter.wait(words, self._limiter.limit)

    async def _until_done(self) -> None:
        """Until every picture is through, or something ends the batch before."""
        working = await self._unless_halted(self._work())
        if working.cancelled():
            self._end(InternVLError("the source was cancelled"))  # unless something ended it
        elif (error := working.exception()) is not None:
            self._end(error)
        for task, ticket in self._tickets.items():
            if not ticket.sending:
                task.cancel()
        if self._tickets:
            await asyncio.wait(list(self._tickets), timeout=self._grace)
        for task in self._tickets:
            task.cancel()
        if self._tickets:
            await asyncio.wait(list(self._tickets))

    async def _work(self) -> None:
        """Admit one picture after the other, then wait for all of them."""
        index, job, error = 0, self._job, None
        naming = Naming(
            job.choice,
            max_pixels=job.checked.max_pixels,
            digests=self.remembers,
            filler=Filler(job.prompts),
        )
        async with aclosing(self._items(naming)) as found:
            async for item in found:
                if isinstance(item, End):
                    error = item.error
                    break
                if first := self._sink.other(item.identity, item.content):
                    item = item.clashing(first)  # noqa: PLW2901
                # Before it is admitted: skipping a million settled keys must not wait for slots.
                if self._sink.claim(item.identity, item.former):
                    self._meter.skip(failed=self._sink.has_failed(item.identity))
                    continue
                await self._window.acquire()
                if (done := self._imported.find(item)) is not None:
                    self._done.put_nowait((index, done))
                    index += 1
                    continue
                await self._limiter.admit()
                ticket = InFlight(index, item)
                task = asyncio.create_task(self._process(ticket))
                self._tickets[task] = ticket
                task.add_done_callback(self._ended)
                index += 1
        while self._tickets:
            await asyncio.wait(list(self._tickets))
        if error is not None:
            self._end(error)

    def _items(self, naming: Naming) -> AsyncGenerator[Item | End, None]:
        job = self._job
        return items(self._images, job.choice, naming, job.part, self._counting.tell)

    async def _process(self, ticket: InFlight) -> None:
        """Make one outcome, whatever happens, unless it ends the batch."""
        begun = time.monotonic()
        found: list[Answer] = []
        error = None
        try:
            try:
                found = await self._requester.describe(ticket, self._halt)
            except asyncio.CancelledError:
                raise
            except SpendLimitError as caught:
                self._end(caught, self._core.timeout)  # what is under way is paid for
                return
            except Exception as caught:  # noqa: BLE001 - recorded, that is the point
                error = caught
            except BaseException as caught:  # noqa: BLE001 - raised where outcomes are taken
                self._end(caught)
                return
            seconds = time.monotonic() - begun
            outcome = outcome_of(ticket.item, self._job, found, error, ticket.attempts, seconds)
            self._judge(ticket.index, outcome, full=self._window.locked())
        finally:
            await self._limiter.dismiss()

    async def _write(self) -> None:
        """Write what is done, all there is at once, then let the caller have it."""
        loop = asyncio.get_running_loop()
        held: dict[int, Outcome] = {}
        following, more = 0, True
        while more:
            news: list[tuple[int, Outcome] | None] = []
            try:
                news.append(await asyncio.wait_for(self._done.get(), SYNC_SECONDS))
                if news[0] is not None:
                    await asyncio.sleep(GATHER)
            # Nothing has come for a while: sinks get their turn to sync, and inputs that wait for
            # an outcome are freed.
            except asyncio.TimeoutError:
                if not self._tickets and not self._window.locked():
                    self._judge.release()  # the inputs may wait for it
            while not self._done.empty():
                news.append(self._done.get_nowait())
            more = None not in news
            held.update(each for each in news if each is not None)
            if self._job.settings.ordered and more:
                outcomes = []
                while following in held:
                    outcomes.append(held.pop(following))
                    following += 1
            else:
                outcomes = [held[index] for index in sorted(held)]
                held.clear()
            try:
                await loop.run_in_executor(self._writer, contained, self._sink.write, outcomes)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - raised where outcomes are taken
                self._end(error)
                return
            self._written.extend(outcomes)
            self._news.set()
            try:
                for outcome in outcomes:
                    self._meter.add(outcome, self._limiter.limit)
            except BaseException as error:  # noqa: BLE001 - the same; what is done is written all the same
                self._end(error)
