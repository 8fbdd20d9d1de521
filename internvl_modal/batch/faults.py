"""Whose fault a failure is: the picture's, the server's, the key's, or this machine's.

One question decides what a batch does with a failure: would the next picture fail the same way? If
so the batch ends and nothing is recorded, so that the same call can go on later; if not, the
failure is this picture's outcome. The kinds are told apart here and acted upon in ``judge``.
"""

from __future__ import annotations

import errno
from typing import TypeGuard

from internvl_modal._utils.causes import causes
from internvl_modal.errors import (
    AuthenticationError,
    ConfigError,
    DeadlineExceededError,
    EmptyAnswerError,
    InternVLError,
    OutOfResourcesError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    ServerUnavailableError,
)

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""These pass when other work ends, so the picture is tried again with less at once."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""A full disk does not empty itself."""
_OF_ALL = (*range(300, 400), 402, 404, 410, 429)
"""Server moved, no credit, no such model, model gone; 429 is rejected for good where a quota is
used up."""


def is_fatal(error: Exception) -> bool:
    """Whether every other picture would fail the same way: key, credit, address, model."""
    if isinstance(error, RequestRejectedError):
        return error.status in _OF_ALL
    if isinstance(error, AuthenticationError):
        return not is_forbidden(error)
    return isinstance(error, ConfigError)


def is_forbidden(error: Exception | None) -> TypeGuard[ServerError]:
    """Whether it is a 403, which is said of a key, and of a picture too.

    Moderation answers so too, and then the next picture is fine.
    """
    return isinstance(error, ServerError) and error.status == 403


def is_shortage(error: BaseException | None) -> bool:
    """Whether this machine lacks descriptors, threads or memory, and may have more in a while."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno in _SHORTAGES)
        or (isinstance(cause, RuntimeError) and "can't start new thread" in str(cause))
        for cause in causes(error)
    )


def local_trouble(error: Exception) -> OutOfResourcesError | None:
    """What ends a batch where this machine has run out of something, which no picture has done."""
    full = any(
        isinstance(cause, OutOfResourcesError)
        or (isinstance(cause, OSError) and cause.errno in _NO_ROOM)
        for cause in causes(error)
    )
    if not full and not is_shortage(error):
        return None
    message = error.message if isinstance(error, InternVLError) else str(error) or "out of memory"
    hint = "this machine has run out of something; the same call goes on once there is more"
    return OutOfResourcesError(message, hint=hint)


def is_unanswered(error: Exception | None) -> TypeGuard[ServerError]:
    """Whether the server gave no answer about the picture: it failed, or was not there.

    An empty answer is one: asked again once, it is what there is to record. A page where a
    completion should be (a login, a proxy's) is none.
    """
    if isinstance(error, EmptyAnswerError):
        return False
    return isinstance(error, ServerError) and (
        error.retryable or isinstance(error, DeadlineExceededError) or type(error) is ServerError
    )


def is_answer(error: Exception | None) -> bool:
    """Whether the server said something about the picture, be it a refusal."""
    return error is None or (isinstance(error, ServerError) and not is_unanswered(error))


def is_absence(error: Exception | None) -> bool:
    """Whether the server was not there, or took nothing on, which is not the picture's doing."""
    return isinstance(error, ServerUnavailableError | RateLimitedError)
