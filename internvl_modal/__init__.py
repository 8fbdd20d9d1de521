"""Describe images with InternVL: on this machine's CPU, on Modal's GPUs, or on any server.

>>> import internvl_modal as ivl
>>> ivl.describe("photo.jpg").text  # doctest: +SKIP

Importing this package loads nothing heavy; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_modal.backends.base import Backend, Capabilities, Endpoint
    from internvl_modal.client import AsyncClient, AsyncStream, Client, Stream
    from internvl_modal.errors import (
        AuthenticationError,
        ConfigError,
        ContextLengthError,
        DeadlineExceededError,
        DeployError,
        EngineError,
        ImageError,
        ImageNotSeenError,
        InternVLError,
        MissingExtraError,
        OutputInvalidError,
        PlanError,
        RateLimitedError,
        RequestRejectedError,
        ServerError,
        ServerUnavailableError,
        WeightsError,
    )
    from internvl_modal.schema import (
        DescribeOptions,
        Description,
        Estimate,
        ImageInfo,
        Message,
        Options,
        Timings,
        Usage,
    )
    from internvl_modal.settings import Settings
    from internvl_modal.shortcuts import adescribe, describe
    from internvl_modal.transport import Retry

__version__ = "0.1.0"

_HOMES = {
    "backends.base": ["Backend", "Capabilities", "Endpoint"],
    "client": ["AsyncClient", "AsyncStream", "Client", "Stream"],
    "errors": [
        "AuthenticationError",
        "ConfigError",
        "ContextLengthError",
        "DeadlineExceededError",
        "DeployError",
        "EngineError",
        "ImageError",
        "ImageNotSeenError",
        "InternVLError",
        "MissingExtraError",
        "OutputInvalidError",
        "PlanError",
        "RateLimitedError",
        "RequestRejectedError",
        "ServerError",
        "ServerUnavailableError",
        "WeightsError",
    ],
    "schema": [
        "DescribeOptions",
        "Description",
        "Estimate",
        "ImageInfo",
        "Message",
        "Options",
        "Timings",
        "Usage",
    ],
    "settings": ["Settings"],
    "shortcuts": ["adescribe", "describe"],
    "transport": ["Retry"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605 - a test compares it with the imports above


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
