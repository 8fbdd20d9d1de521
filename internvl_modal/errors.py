"""Every exception this package raises.

InternVLError                  .hint says what to do next; .retryable
|- ConfigError                 a setting, option or argument is wrong
|- MissingExtraError           an optional dependency is not installed
|- ImageError                  a picture cannot be used; .source names it
|- OutOfResourcesError         memory, file descriptors or disk ran out here
|- WeightsError                model files cannot be had; .files names them, .destination the folder
|  `- WeightsInterruptedError  Ctrl-C stopped a download; it is a KeyboardInterrupt as well
|- PlanError                   a deployment cannot work as asked
|- SpendLimitError             max_usd is reached, or would be; .spent .max_usd
|- DeployError                 a deployment failed or does not exist
`- ServerError                 .status .body .request_id .retry_after .text
   |- AuthenticationError      401, 403
   |- RequestRejectedError     the server refuses this request (other 4xx)
   |- ContextLengthError       .needed .available tokens
   |- RateLimitedError         429
   |- ServerUnavailableError   cold, 409, 502, 503, 504 or no connection
   |  `- AnswerLostError       the answer was lost on the way
   |- DeadlineExceededError    the call's time is up
   |- EngineError              the engine failed while it answered
   |  `- EmptyAnswerError      it answered without a text; .reasoning is what it wrote instead
   |- ImageNotSeenError        .expected .actual prompt tokens: the picture was not read
   |- OutputInvalidError       .text: the answer does not fit the schema asked for
   `- AnswerFlaggedError       .text .flags: the answer breaks rules that it must keep
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

__all__ = [
    "AnswerFlaggedError", "AnswerLostError", "AuthenticationError", "ConfigError",
    "ContextLengthError", "DeadlineExceededError", "DeployError", "EmptyAnswerError",
    "EngineError", "ImageError", "ImageNotSeenError", "InternVLError", "MissingExtraError",
    "OutOfResourcesError", "OutputInvalidError", "PlanError", "RateLimitedError",
    "RequestRejectedError", "ServerError", "ServerUnavailableError", "SpendLimitError",
    "WeightsError", "WeightsInterruptedError",
]  # fmt: skip


class InternVLError(Exception):
    """Root of all errors of this package.

    Every error survives pickling with all its fields, as batches hand them between processes.
    ``message`` is the text without the hint, ``hint`` what to do next, for a caller who prints them
    apart. ``retryable`` is about the same call made again later, unchanged.

    >>> error = InternVLError("the disk is full", hint="make room")
    >>> str(error), error.hint
    ('the disk is full (make room)', 'make room')
    """

    retryable: bool = False
    most_attempts: int | None = None
    """After so many it will not get better; None where only the caller's patience counts."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint

    # Exceptions are pickled by calling the class with ``args``; ours have keyword arguments that
    # are required, and that call would fail in the process which receives them.
    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        fields = dict(self.__dict__)
        return (partial(_rebuild, type(self)), (fields,))

    def _render_traceback_(self) -> list[str]:
        """What notebooks show: IPython asks an exception for it, where it would print every frame.

        The caller's line, the message, and what to do next on a line of its own.
        """
        ours = str(Path(__file__).parent)
        frames = traceback.extract_tb(self.__traceback__)
        places = [f"{f.name}, line {f.lineno}: {f.line}" for f in frames if ours not in f.filename]
        return [*places[-1:], f"{type(self).__name__}: {self.message}", *filter(None, [self.hint])]


def _rebuild(cls: type[InternVLError], fields: dict[str, Any]) -> InternVLError:
    """Make an error again from its fields: subclasses' constructors take other arguments."""
    error = cls.__new__(cls)
    InternVLError.__init__(error, fields["message"], hint=fields["hint"])
    error.__dict__.update(fields)
    return error


class ConfigError(InternVLError):
    """A setting, option or argument is wrong.

    Raised before anything is sent or started. The command line ends with code 2.
    """


class MissingExtraError(InternVLError):
    """An optional dependency is not installed.

    Not an ImportError: such a one inside an extra would otherwise look like a missing extra.
    """

    def __init__(self, package: str, extra: str, *, hint: str = "") -> None:
        super().__init__(
            f"the package {package!r} is not installed",
            hint=hint or f"pip install 'internvl-modal[{extra}]'",
        )
        self.package = package
        self.extra = extra


class ImageError(InternVLError):
    """A picture cannot be used; ``source`` names it.

    A batch writes it as that picture's failure and goes on.
    """

    def __init__(self, message: str, *, source: str, hint: str = "") -> None:
        super().__init__(f"{source}: {message}", hint=hint)
        self.source = source


class OutOfResourcesError(InternVLError):
    """Memory, file descriptors or disk ran out on this machine: no picture is to blame.

    A batch stops at it, so that the next run asks again for what is left.
    """


class WeightsError(InternVLError):
    """Model files are missing, wrong or cannot be fetched.

    ``files`` names them; ``destination`` is the folder where they would go.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        files: tuple[str, ...] = (),
        destination: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.files = files
        self.destination = destination


class WeightsInterruptedError(WeightsError, KeyboardInterrupt):
    """Ctrl-C stopped a download, which can be continued.

    A KeyboardInterrupt too, so that ``except Exception`` does not swallow Ctrl-C.
    """


class PlanError(InternVLError):
    """A deployment cannot work as asked.

    The hint names choices of GPUs that work. ``force=True`` deploys all the same.
    """


class SpendLimitError(InternVLError):
    """``max_usd`` is reached, or would be; ``spent`` in USD, what is under way included.

    All that was answered is written. Nothing was sent where ``spent`` is 0.
    """

    def __init__(self, message: str, *, spent: float, max_usd: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.spent = spent
        self.max_usd = max_usd


class DeployError(InternVLError):
    """A deployment failed or does not exist.

    Modal's own errors come out as it, with theirs as the cause.
    """


class ServerError(InternVLError):
    """The server did not give a usable answer; ``text`` is what it wrote, where it wrote any.

    ``status`` is the HTTP status, None where there was no answer; ``body`` the beginning of it, at
    most 2,000 characters; ``request_id`` what the server's operator can look for; ``retry_after``
    in seconds, where the server says so.
    """

    lost: bool = False
    """Whether the engine may have worked for an answer that nobody has: asking again costs twice,
    and is done as often as ``Retry.resend`` says."""
    tried: tuple[str, ...] = ()
    """What came of each try, where an answer was asked for again."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        body: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
        text: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.body = body
        self.request_id = request_id
        self.retry_after = retry_after
        self.text = text


class AuthenticationError(ServerError):
    """The key is missing or wrong (401, 403).

    Never retried: a key does not become right by itself.
    """


class RequestRejectedError(ServerError):
    """The server refuses this request; sending it again will not help."""


class ContextLengthError(ServerError):
    """The request does not fit the server's context; both counts are tokens, None if unknown."""

    def __init__(
        self,
        message: str,
        *,
        needed: int | None = None,
        available: int | None = None,
        **response: Any,
    ) -> None:
        super().__init__(message, **response)
        self.needed = needed
        self.available = available


class RateLimitedError(ServerError):
    """Too many requests (429); ``retry_after`` is in seconds."""

    retryable = True


class ServerUnavailableError(ServerError):
    """The server is cold, restarting or unreachable.

    A cold start is the usual case; a client waits for it within its timeout.
    """

    retryable = True


class AnswerLostError(ServerUnavailableError):
    """The connection ended after the question was sent and before its answer was there."""

    lost = True


class DeadlineExceededError(ServerError):
    """The call's overall time is up.

    The timeout of the call, which counts retries, downloads of pictures and waiting.
    """


class EngineError(ServerError):
    """The engine failed while it answered.

    LMDeploy says it with a 200 and the text "internal error happened".
    """

    retryable = True


class EmptyAnswerError(EngineError):
    """The model answered, and there is no description in it: a refusal, only reasoning, nothing.

    Asked again once, since most engines do not repeat themselves to the letter; ``retryable``
    is False where the answer would be the same, such as reasoning that spent ``max_tokens``. It was
    paid for like one that was lost on the way, and counts against ``Retry(resend=)`` as that does.
    """

    most_attempts = 2
    lost = True

    def __init__(
        self,
        message: str,
        *,
        reasoning: str = "",
        retryable: bool = True,
        **response: Any,
    ) -> None:
        super().__init__(message, **response)
        self.reasoning = reasoning
        self.retryable = retryable


class ImageNotSeenError(ServerError):
    """The answer was given without the picture: fewer prompt tokens than its tiles alone need.

    Both counts are prompt tokens, None if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        expected: int | None = None,
        actual: int | None = None,
        **response: Any,
    ) -> None:
        super().__init__(message, **response)
        self.expected = expected
        self.actual = actual


class OutputInvalidError(ServerError):
    """The answer does not fit the schema asked for; ``text`` is the raw answer."""


class AnswerFlaggedError(ServerError):
    """No answer kept the rules that it must keep; ``text`` is the best of them, ``flags`` its own.

    Those of a preset, after its tries, or any with ``on_flag="fail"``.
    """

    def __init__(self, text: str, flags: tuple[str, ...]) -> None:
        super().__init__(
            f"the answer is flagged: {', '.join(flags)}",
            hint="its text is kept; ask in other words, or another model",
            status=200,
            text=text,
        )
        self.flags = flags
