"""What the failures of an exchange mean, told without its keys."""

from __future__ import annotations

import traceback
from typing import Any, TypeVar

from internvl_modal.errors import (
    AnswerLostError,
    EngineError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.protocol.http import HttpResponse
from internvl_modal.transport.exchange import (
    BrokenError,
    Exchange,
    Reply,
    UnsentError,
    remaining,
    shown,
)
from internvl_modal.transport.masking import conceal, forget, secrets_of

T = TypeVar("T")


class Translated:
    """Turns what carriers raise into our errors; whatever happens at the deadline is its own.

    ``begun``: the server has said 200 and given pieces of its answer away.

    At the deadline every failure is DeadlineExceededError, since the deadline is what made it. No
    error holds a key of ``step``, whatever the server has said.
    """

    def __init__(self, step: Exchange[Any], *, begun: bool = False) -> None:
        self._step, self._begun = step, begun

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        step = self._step
        if isinstance(error, ServerError):
            conceal(error, secrets_of(step.base_url, step.request.headers))
        elif isinstance(error, UnsentError | BrokenError):
            forget(error)
            remaining(step.deadline)
            raise self._meant(error) from error.__cause__

    def _meant(self, error: UnsentError | BrokenError) -> ServerError:
        step = self._step
        if isinstance(error, UnsentError):
            return ServerUnavailableError(
                f"no answer from {shown(step.base_url)}: {error}",
                hint="check the URL and that the server runs",
            )
        if self._begun:
            return EngineError(
                f"the stream ended early: {error}",
                hint="see the server's log; the same request may work again",
                status=200,
            )
        # A GET costs the engine nothing, whether of a list or of an answer that is kept.
        if step.request.method == "POST" and step.so_far.hop is None:
            step.so_far.lost += 1
        return AnswerLostError(
            f"the answer of {shown(step.base_url)} was lost: {error}",
            hint="see the server's log; Retry(resend=) says how often to ask again",
        )


def answered(step: Exchange[T], reply: Reply, body: bytes) -> T:
    """What the answer means; raises ServerError where it is none, or no longer there.

    After a 303 a 404 or 410 says that the answer was there, and is gone.
    """
    response = HttpResponse(reply.status, reply.headers, body)
    so_far = step.so_far
    if so_far.hop is not None and reply.status in (404, 410):
        raise ServerError(
            f"{shown(step.base_url)} no longer has the answer that it had put at an address",
            hint="it gives an answer once, and that one was lost on the way",
            status=None,
            request_id=response.request_id,
        )
    # Whatever is wrong with such an answer, there is no other to be had.
    so_far.over = so_far.hop is not None and reply.status == 200  # it was given away
    try:
        return step.decode(response)
    except ServerError as error:
        if error.lost and step.request.method == "POST":
            so_far.lost += 1
        traceback.clear_frames(error.__traceback__)  # whoever keeps the error keeps no document
        raise


def too_much(step: Exchange[Any], most: int) -> ServerError:
    """The error of an answer that does not end in time to be one."""
    size = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
    return ServerError(
        f"the answer of {shown(step.base_url)} is larger than {size}",
        hint="check that the base URL is that of an OpenAI-compatible server",
    )
