"""Describe images with InternVL: on this machine's CPU, on Modal's GPUs, or on any server.

>>> import internvl_modal as ivl
>>> ivl.describe("photo.jpg").text  # doctest: +SKIP

Importing this package loads nothing heavy; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from internvl_modal import errors

if TYPE_CHECKING:
    from internvl_modal.backends.base import Backend as Backend
    from internvl_modal.backends.base import Capabilities as Capabilities
    from internvl_modal.backends.base import Endpoint as Endpoint
    from internvl_modal.batch import BatchOptions as BatchOptions
    from internvl_modal.batch import Outcome as Outcome
    from internvl_modal.batch import Progress as Progress
    from internvl_modal.client import AsyncClient as AsyncClient
    from internvl_modal.client import Client as Client
    from internvl_modal.deploying import adeploy as adeploy
    from internvl_modal.deploying import connect as connect
    from internvl_modal.deploying import deploy as deploy
    from internvl_modal.deployment import Deployment as Deployment
    from internvl_modal.errors import AuthenticationError as AuthenticationError
    from internvl_modal.errors import ConfigError as ConfigError
    from internvl_modal.errors import ContextLengthError as ContextLengthError
    from internvl_modal.errors import DeadlineExceededError as DeadlineExceededError
    from internvl_modal.errors import DeployError as DeployError
    from internvl_modal.errors import EngineError as EngineError
    from internvl_modal.errors import ImageError as ImageError
    from internvl_modal.errors import ImageNotSeenError as ImageNotSeenError
    from internvl_modal.errors import InternVLError as InternVLError
    from internvl_modal.errors import MissingExtraError as MissingExtraError
    from internvl_modal.errors import OutputInvalidError as OutputInvalidError
    from internvl_modal.errors import PlanError as PlanError
    from internvl_modal.errors import RateLimitedError as RateLimitedError
    from internvl_modal.errors import RequestRejectedError as RequestRejectedError
    from internvl_modal.errors import ServerError as ServerError
    from internvl_modal.errors import ServerUnavailableError as ServerUnavailableError
    from internvl_modal.errors import WeightsError as WeightsError
    from internvl_modal.errors import WeightsInterruptedError as WeightsInterruptedError
    from internvl_modal.planner import Plan as Plan
    from internvl_modal.planning import plan as plan
    from internvl_modal.schema import DescribeOptions as DescribeOptions
    from internvl_modal.schema import Description as Description
    from internvl_modal.schema import Estimate as Estimate
    from internvl_modal.schema import ImageInfo as ImageInfo
    from internvl_modal.schema import Message as Message
    from internvl_modal.schema import Options as Options
    from internvl_modal.schema import Timings as Timings
    from internvl_modal.schema import Usage as Usage
    from internvl_modal.settings import Settings as Settings
    from internvl_modal.shortcuts import adescribe as adescribe
    from internvl_modal.shortcuts import describe as describe
    from internvl_modal.shortcuts import describe_many as describe_many
    from internvl_modal.streams import AsyncStream as AsyncStream
    from internvl_modal.streams import Stream as Stream
    from internvl_modal.transport import Retry as Retry
    from internvl_modal.weights import WeightsCache as WeightsCache

__version__ = "0.1.0"

_HOMES = {
    "backends.base": ["Backend", "Capabilities", "Endpoint"],
    "batch": ["BatchOptions", "Outcome", "Progress"],
    "client": ["AsyncClient", "Client"],
    "deploying": ["adeploy", "connect", "deploy"],
    "deployment": ["Deployment"],
    "errors": errors.__all__,
    "planner": ["Plan"],
    "planning": ["plan"],
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
    "shortcuts": ["adescribe", "describe", "describe_many"],
    "streams": ["AsyncStream", "Stream"],
    "transport": ["Retry"],
    "weights": ["WeightsCache"],
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
