"""When a request is sent again: a value that every loop of this package asks.

One rule for the client, batches, downloads and waiting for a deployment: users set it once, and no
two loops wait differently for the same failure. It holds no state; who asks keeps the count.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

from internvl_modal.errors import ConfigError, InternVLError, ServerError

__all__ = ["Retry"]

logger = logging.getLogger("internvl_modal.retry")


@dataclass(frozen=True)
class Retry:
    """When a request is sent again: connection errors, 408, 409, 429 and 5xx.

    Waits grow from ``initial`` to ``maximum`` seconds by ``factor``, with full jitter; a
    ``Retry-After`` that asks for longer is obeyed. No wait outlasts the call's deadline.

    ``resend``: how often a question is sent again whose answer was lost on the way: the server may
    have worked for it, and works, and is paid, for it again. What the server has put at an address
    of its own (303, as Modal does) is fetched again from there and never asked again.

    ``Retry(attempts=1)`` never asks again.

    >>> from internvl_modal.errors import AuthenticationError
    >>> Retry().pause(1, AuthenticationError("no key"), deadline=float("inf")) is None
    True
    """

    attempts: int = 5
    initial: float = 0.5
    maximum: float = 30.0
    factor: float = 2.0
    resend: int = 1

    def __post_init__(self) -> None:
        waits = self.initial >= 0 and self.maximum >= 0 and self.factor >= 1
        if not waits or self.attempts < 1 or self.resend < 0:
            raise ConfigError(
                f"impossible {self!r}",
                hint="attempts >= 1, waits >= 0 s, factor >= 1 and resend >= 0",
            )

    def pause(
        self, attempt: int, error: BaseException, deadline: float, *, lost: int = 0
    ) -> float | None:
        """Seconds to wait after ``error`` ended attempt number ``attempt``; None: do not go on.

        ``deadline`` is in monotonic seconds. ``lost``: answers to this question that were lost.
        Each pause is logged, without anything that a server or a caller said.
        """
        if not isinstance(error, InternVLError) or not error.retryable:
            return None
        # ``most_attempts`` is the error's own: an empty answer is asked for once more and no
        # further.
        if attempt >= min(self.attempts, error.most_attempts or attempt + 1):
            return None
        if lost > self.resend:
            return None
        # Full jitter: clients that failed together must not come back together.
        seconds = random.uniform(0, self._longest(attempt))  # noqa: S311  # nosec B311  # jitter
        if isinstance(error, ServerError):
            # Longer, never shorter: a server may say 0 and mean "whenever you like".
            seconds = max(seconds, error.retry_after or 0.0)
        # Better the server's error now than the deadline's after a wait.
        if time.monotonic() + seconds >= deadline:
            return None
        logger.info(
            "attempt %d: %s; the next one in %.2f s", attempt, _reason(error, lost), seconds
        )
        return seconds

    def _longest(self, attempt: int) -> float:
        try:
            return min(self.maximum, self.initial * self.factor ** (attempt - 1))
        # Attempts may be a million, where somebody waits for a deployment.
        except OverflowError:
            return self.maximum


def _reason(error: InternVLError, lost: int) -> str:
    """Kind and status: words of a server may repeat a key."""
    status = f" {error.status}" if isinstance(error, ServerError) and error.status else ""
    again = f", answer lost {lost} times" if lost else ""
    return f"{type(error).__name__}{status}{again}"
