"""Options that a function takes as ``**options``, shown as keywords of their own.

``Unpack[TypedDict]`` keeps twenty keywords in one place for type checkers, and ``inspect`` still
shows ``**options`` only. Setting ``__signature__`` closes that gap without writing the keywords
down again in each function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["showing"]

F = TypeVar("F", bound=Callable[..., object])


def showing(options: type, defaults: Mapping[str, object]) -> Callable[[F], F]:
    """Put the keys of a TypedDict into a function's signature, with their defaults.

    Editors read them from ``Unpack``; Jupyter, ``help()`` and ``inspect`` read the signature.

    Nothing changes in how the function is called: unknown names must be refused by itself.
    """

    def show(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named = {parameter.name for parameter in own}
        others = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name))
            for name in options.__annotations__
            if name not in named
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *others]
        )
        return function

    return show
