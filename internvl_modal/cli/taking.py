"""Commands whose flags are a class: a function of forty parameters cannot be read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

__all__ = ["taking"]

F = TypeVar("F")


def taking(kind: type[F]) -> Callable[[Callable[[F], int]], Callable[..., int]]:
    """Make a command of flags as typer wants it: with a parameter for each field of ``kind``."""

    def made(command: Callable[[F], int]) -> Callable[..., int]:
        def called(**given: Any) -> int:
            flags = kind()
            vars(flags).update(given)
            return command(flags)

        keyword, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
        parameters = [
            inspect.Parameter(name, keyword, default=getattr(kind, name, empty), annotation=hint)
            for name, hint in get_type_hints(kind, include_extras=True).items()
        ]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        return called

    return made
