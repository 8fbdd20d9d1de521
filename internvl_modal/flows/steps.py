"""Steps of a flow."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from internvl_modal.transport.exchange import Exchange

T = TypeVar("T")


@dataclass(frozen=True)
class Blocking(Generic[T]):
    """A blocking function to call, in a thread where an event loop runs."""

    function: Callable[[], T]


Flow: TypeAlias = Generator[Blocking[Any] | Exchange[Any], Any, T]
