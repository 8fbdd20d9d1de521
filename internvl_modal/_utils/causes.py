"""What an error came of, by Python's own rules."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["causes"]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what Python would print above it, each once: a chain may lead into itself.

    ``raise ... from None`` ends a chain, as it does in a traceback.

    >>> error = ValueError("outer")
    >>> error.__cause__ = OSError("inner")
    >>> [str(cause) for cause in causes(error)]
    ['outer', 'inner']
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
