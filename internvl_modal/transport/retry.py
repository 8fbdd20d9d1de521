"""When a request is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import tenacity

from internvl_modal.errors import (
    ConfigError,
    InternVLError,
)


@dataclass(frozen=True)
class Retry:
    """When a request is sent again: connection errors, 408, 429 and 5xx.

    Waits grow from ``initial`` to ``maximum`` seconds by ``factor``, with full jitter; a
    ``Retry-After`` that asks for longer is obeyed. No wait outlasts the call's deadline.
    """

    attempts: int = 5
    initial: float = 0.5
    maximum: float = 30.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.initial < 0 or self.maximum < 0 or self.factor < 1:
            raise ConfigError(
                f"impossible {self!r}", hint="attempts >= 1, waits >= 0 s and factor >= 1"
            )


class _Policy(TypedDict):
    stop: Callable[[tenacity.RetryCallState], bool]
    wait: Callable[[tenacity.RetryCallState], float]
    retry: Any
    reraise: bool


def policy(retry: Retry, deadline: float) -> _Policy:
    """Tenacity's arguments, the same for both clients."""
    backoff = tenacity.wait_random_exponential(
        multiplier=retry.initial, max=retry.maximum, exp_base=retry.factor
    )

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), getattr(error, "retry_after", None) or 0.0)

    def stop(state: tenacity.RetryCallState) -> bool:
        late = time.monotonic() + state.upcoming_sleep >= deadline
        return late or state.attempt_number >= retry.attempts

    def again(error: BaseException) -> bool:
        return isinstance(error, InternVLError) and error.retryable

    return _Policy(stop=stop, wait=wait, retry=tenacity.retry_if_exception(again), reraise=True)
