"""Errors of ours without the frames of ours: what a caller sees is their line and our message.

A call passes through forty frames of generators, event loops and pools, and a traceback shows each,
for causes as well; what the caller can act on is in the last line. So whatever callers use is put
behind ``short_errors``. The whole traceback is logged at DEBUG under ``internvl_modal``, and what
led to an error stays in its ``__context__``.
"""

from __future__ import annotations

import inspect
import logging
import sysconfig
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from internvl_modal._utils.causes import causes
from internvl_modal.errors import InternVLError

T = TypeVar("T", bound=Callable[..., Any])

logger = logging.getLogger("internvl_modal")

_SPECIAL = ("__init__", "__enter__", "__aenter__", "__iter__", "__next__", "__aiter__", "__anext__")
_OURS = str(Path(__file__).parents[1])
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def short_errors(door: T) -> T:
    """A function, or a class with its public methods, whose errors end at the caller's line.

    >>> from internvl_modal import describe
    >>> try:
    ...     describe("no-such.jpg", model="demo")
    ... except InternVLError as error:
    ...     print(error.__cause__, type(error.__context__).__name__)
    None FileNotFoundError
    """
    if not isinstance(door, type):
        shortened: T = _shortened(door)
        return shortened
    for name, member in list(vars(door).items()):
        if inspect.isfunction(member) and (not name.startswith("_") or name in _SPECIAL):
            setattr(door, name, (_made if name == "__init__" else _shortened)(member))
    return door


def _made(init: Any) -> Any:
    """A constructor behind the door; what it could not make is shown to debuggers, and no more."""

    @wraps(init)
    def made(self: object, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            init(self, *args, **kwargs)
        except InternVLError as error:
            del args, kwargs
            raise _short(error) from error.__cause__

    return made


def _shortened(function: Any) -> Any:
    """``function`` behind the door, of the same kind: plain, awaited or a generator of either."""
    if inspect.isasyncgenfunction(function):

        @wraps(function)
        async def agenerated(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            __tracebackhide__ = True
            try:
                async with aclosing(function(*args, **kwargs)) as items:
                    async for item in items:
                        yield item
            except InternVLError as error:
                del args, kwargs  # keys may be among them, and tools print the locals of frames
                raise _short(error) from error.__cause__

        return agenerated
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            __tracebackhide__ = True
            try:
                return (yield from function(*args, **kwargs))
            except InternVLError as error:
                del args, kwargs  # keys may be among them, and tools print the locals of frames
                raise _short(error) from error.__cause__

        return generated
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                return await function(*args, **kwargs)
            except InternVLError as error:
                del args, kwargs  # keys may be among them, and tools print the locals of frames
                raise _short(error) from error.__cause__

        return awaited

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except InternVLError as error:
            del args, kwargs
            raise _short(error) from error.__cause__

    return called


def _short(error: InternVLError) -> InternVLError:
    """``error`` as its caller shall see it: without our frames, and without a cause within them.

    What the caller's own code raised (a generator, a callback) stays as it is.
    """
    if _of_caller(error):
        return error
    # Not again by a door around this one, of which the error has its last frame.
    if _frames(error)[-1:] != [__file__]:
        logger.debug("%s", type(error).__name__, exc_info=error)
    _, *inner = causes(error)
    if inner and not any(_of_caller(cause) for cause in inner):
        error.__cause__, error.__context__, error.__suppress_context__ = None, inner[0], True
    return error.with_traceback(None)


def _of_caller(error: BaseException) -> bool:
    """Whether code that is neither ours nor a library's had a part in it."""
    return not all(file.startswith((_OURS, *_LIBRARIES, "<frozen")) for file in _frames(error))


def _frames(error: BaseException) -> list[str]:
    """The file of each frame of its traceback, the innermost last."""
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
