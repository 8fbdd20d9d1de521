"""Modules that annotations name and that few calls need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["LazyModule"]


class LazyModule(ModuleType):
    """Stands for a module until one of its names is asked for.

    So ``typing.get_type_hints`` finds ``httpx.Client``, and importing a client does not import
    httpx.
    """

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(self.__name__), name)
