"""Wait until what was deployed answers, and say meanwhile what it waits for.

A deploy that returns before the model answers leaves its user with a URL that fails for ten
minutes. Waiting for it means telling a queue (hours, free) from a start-up (minutes, paid) from a
fault, with what Modal shows of a container.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from concurrent.futures import TimeoutError as NotYet
from dataclasses import replace

from pydantic import SecretStr

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal.deployment.handle import Deployment
from internvl_modal.errors import (
    AuthenticationError,
    DeadlineExceededError,
    DeployError,
    EngineError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.transport.retry import Retry

LOOK = 5.0
"""Seconds between two looks at how far it is."""
TELL = 15.0
"""Seconds between two lines about it."""
LONGEST_QUEUE = 24 * 3600.0
"""Seconds to wait for a GPU, which costs nothing."""
RULE = Retry(attempts=1_000_000, initial=1.0, maximum=5.0)
"""Between two questions whether it answers: the deadline is kept by who waits.

Attempts without end.
"""
QUEUED = "queued for a GPU"


class Progress:
    """How far the container of one version is: ``phase``, and when its start-up began.

    The wait for a GPU is not start-up: that begins with the container. Modal's statistics say
    whether there is one, its log how far it is; during an update only the log does, for the
    containers of the old version still run.

    Not the download's or the batch's: a deploy's. One thread looks, another asks.
    """

    def __init__(self, deployment: Deployment, mark: str, *, update: bool) -> None:
        self._deployment, self._mark, self._update = deployment, mark, update
        self.phase = QUEUED
        self._asked = time.monotonic()
        self._begun: float | None = None
        self._old_ones = update

    def look(self) -> None:
        """Ask Modal; what it does not say stays as it was."""
        try:
            phase = self._logged() or ("" if self._update else self._counted())
        except DeployError:
            return
        if phase and phase != self.phase:
            self.phase = phase
            self._begun = self._begun or time.monotonic()

    def expired(self) -> bool:
        """Whether the queue or the start-up has taken too long."""
        if self._begun is None:
            return time.monotonic() - self._asked > LONGEST_QUEUE
        limit = self._deployment.spec.container.startup_timeout
        return time.monotonic() - self._begun > limit

    def spares(self, error: ServerError) -> bool:
        """Whether the failure of a container may be one of the old version's: once at most.

        One that ends takes the question along that it holds, and this version's has not begun.
        """
        spared, self._old_ones = self._old_ones, False
        return spared and is_proxys(error) and self.phase == QUEUED

    def __str__(self) -> str:
        deployment, seconds = self._deployment, time.monotonic() - self._asked
        return (
            f"{deployment.name}: {self.phase} ({deployment.options.gpu}), {seconds:.0f} s so far; "
            f"{deployment.spec.cost_per_hour:.2f} USD an hour while it runs; Ctrl-C gives up, "
            f"internvl-modal stop {deployment.name} stops it"
        )

    def _logged(self) -> str:
        """The last phase that the container of this version has written, "" for none."""
        lines = [line for line in self._deployment.logs(tail=100) if line.startswith(self._mark)]
        return lines[-1].removeprefix(self._mark).partition(";")[0] if lines else ""

    def _counted(self) -> str:
        """What Modal's counters say: a container that has written nothing is still being made."""
        return "pulling the image" if self._deployment.status().containers else ""


def is_proxys(error: ServerError) -> bool:
    """Whether Modal refused a request itself, before it reached a container.

    Modal's proxy begins its own errors so; an engine's 401 is a JSON document.
    """
    return error.body.startswith("modal-http:")


def wait_for_answer(
    deployment: Deployment,
    version_key: SecretStr,
    mark: str,
    stop: threading.Event,
    *,
    update: bool,
) -> None:
    """Return once a container of this version answers: those of an older one refuse its key.

    ``mark`` begins the lines of its log that tell how far it is. Every 15 s a line on standard
    error says so too. Raises DeployError with the last log lines if none answers in the time for
    its start-up, without them when ``stop`` is set.
    """
    over = threading.Event()
    progress = Progress(deployment, mark, update=update)
    answered = in_daemon(lambda: _ask(deployment, version_key, over, progress, update=update))
    looked = told = time.monotonic()
    try:
        while True:
            try:
                # Short, so that Ctrl-C and ``stop`` are heard at once.
                return answered.result(timeout=0.5)
            except NotYet:
                now = time.monotonic()
            if stop.is_set():
                raise DeployError(f"deploying {deployment.name}: interrupted")
            if now - looked >= LOOK:
                looked = now
                progress.look()
            if now - told >= TELL:
                told = now
                print(progress, file=sys.stderr, flush=True)  # noqa: T201
            if progress.expired():
                late = DeadlineExceededError(f"time is up, it is still {progress.phase}")
                raise unanswered(deployment, late)
    except ServerError as error:
        raise unanswered(deployment, error) from error
    # The thread that asks ends at its next pause, whatever happened here.
    finally:
        over.set()


def _ask(
    deployment: Deployment,
    version_key: SecretStr,
    over: threading.Event,
    progress: Progress,
    *,
    update: bool,
) -> None:
    """Ask until it answers, or ``over`` is set; raises ServerError where asking again is of no use.

    One attempt at a time and pauses of its own: the client's retries would not hear ``over``.
    """
    asking = replace(deployment, api_key=version_key)
    patience = deployment.spec.container.startup_timeout
    with asking.client(timeout=patience, retry=Retry(attempts=1)) as client:
        for attempt in itertools.count(1):
            try:
                client.models()
                return
            except (ServerUnavailableError, RateLimitedError) as error:
                pause = RULE.pause(attempt, error, math.inf) or 0.0
            except DeadlineExceededError:  # it waits in Modal's queue
                pause = 0.0
            except AuthenticationError as error:
                if not update or is_proxys(error):
                    raise
                pause = 1.0  # the old version answers
            except EngineError as error:
                if not progress.spares(error):
                    raise
                pause = 1.0
            if over.wait(pause):
                return


def unanswered(deployment: Deployment, error: ServerError) -> DeployError:
    """The error of a deployment that does not answer, with the end of its log."""
    try:
        lines = "\n".join(deployment.logs(tail=20))
    except DeployError as failure:  # must not hide what is wrong
        lines = f"(no log: {failure.message})"
    return DeployError(
        f"{deployment.name} is deployed but does not answer ({error.message}); its last lines:"
        f"\n{lines}",
        hint=f"internvl-modal logs {deployment.name} shows more, while it is deployed; keep=True "
        "leaves it",
    )
