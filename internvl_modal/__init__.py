"""Describe images with InternVL: on this machine's CPU, on Modal's GPUs, or on any server.

>>> import internvl_modal as ivl
>>> ivl.describe("photo.jpg").text  # doctest: +SKIP

Importing this package loads nothing heavy; each name below is loaded when it is first used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from internvl_modal import errors

# Quiet unless the program sets logging up; otherwise Python prints warnings on standard error.
logging.getLogger("internvl_modal").addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from internvl_modal._utils.user_warning import InternVLWarning as InternVLWarning
    from internvl_modal.backends.endpoint import EndpointBackend as EndpointBackend
    from internvl_modal.backends.lmdeploy import LMDeployBackend as LMDeployBackend
    from internvl_modal.backends.local import LocalBackend as LocalBackend
    from internvl_modal.backends.modal import ModalBackend as ModalBackend
    from internvl_modal.batch.iterate import AsyncBatch as AsyncBatch
    from internvl_modal.batch.iterate import Batch as Batch
    from internvl_modal.batch.options import BatchOptions as BatchOptions
    from internvl_modal.batch.outcome import Outcome as Outcome
    from internvl_modal.batch.progress import BatchProgress as BatchProgress
    from internvl_modal.batch.progress import Progress as Progress
    from internvl_modal.captions.answer import Answer as Answer
    from internvl_modal.captions.boxes import Box as Box
    from internvl_modal.captions.boxes import Located as Located
    from internvl_modal.captions.presets.base import Preset as Preset
    from internvl_modal.captions.presets.lora import lora as lora
    from internvl_modal.captions.presets.registry import PRESETS as PRESETS
    from internvl_modal.captions.rules import RULES as RULES
    from internvl_modal.captions.rules import Rule as Rule
    from internvl_modal.client.aio import AsyncClient as AsyncClient
    from internvl_modal.client.shortcuts import adescribe as adescribe
    from internvl_modal.client.shortcuts import adescribe_many as adescribe_many
    from internvl_modal.client.shortcuts import alocate as alocate
    from internvl_modal.client.shortcuts import describe as describe
    from internvl_modal.client.shortcuts import describe_many as describe_many
    from internvl_modal.client.shortcuts import locate as locate
    from internvl_modal.client.streams import AsyncStream as AsyncStream
    from internvl_modal.client.streams import Stream as Stream
    from internvl_modal.client.sync import Client as Client
    from internvl_modal.deployment.api import aconnect as aconnect
    from internvl_modal.deployment.api import adeploy as adeploy
    from internvl_modal.deployment.api import connect as connect
    from internvl_modal.deployment.api import deploy as deploy
    from internvl_modal.deployment.billing import Billed as Billed
    from internvl_modal.deployment.billing import DeploymentCost as DeploymentCost
    from internvl_modal.deployment.billing import Stats as Stats
    from internvl_modal.deployment.handle import Deployment as Deployment
    from internvl_modal.deployment.managed import Status as Status
    from internvl_modal.deployment.remote_batch import Mapped as Mapped
    from internvl_modal.errors import AnswerFlaggedError as AnswerFlaggedError
    from internvl_modal.errors import AnswerLostError as AnswerLostError
    from internvl_modal.errors import AuthenticationError as AuthenticationError
    from internvl_modal.errors import ConfigError as ConfigError
    from internvl_modal.errors import ContextLengthError as ContextLengthError
    from internvl_modal.errors import DeadlineExceededError as DeadlineExceededError
    from internvl_modal.errors import DeployError as DeployError
    from internvl_modal.errors import EmptyAnswerError as EmptyAnswerError
    from internvl_modal.errors import EngineError as EngineError
    from internvl_modal.errors import ImageError as ImageError
    from internvl_modal.errors import ImageNotSeenError as ImageNotSeenError
    from internvl_modal.errors import InternVLError as InternVLError
    from internvl_modal.errors import MissingExtraError as MissingExtraError
    from internvl_modal.errors import OutOfResourcesError as OutOfResourcesError
    from internvl_modal.errors import OutputInvalidError as OutputInvalidError
    from internvl_modal.errors import PlanError as PlanError
    from internvl_modal.errors import RateLimitedError as RateLimitedError
    from internvl_modal.errors import RequestRejectedError as RequestRejectedError
    from internvl_modal.errors import ServerError as ServerError
    from internvl_modal.errors import ServerUnavailableError as ServerUnavailableError
    from internvl_modal.errors import SpendLimitError as SpendLimitError
    from internvl_modal.errors import WeightsError as WeightsError
    from internvl_modal.errors import WeightsInterruptedError as WeightsInterruptedError
    from internvl_modal.planning.api import plan as plan
    from internvl_modal.planning.cost import Cost as Cost
    from internvl_modal.planning.cost import Prices as Prices
    from internvl_modal.planning.memory import Capacity as Capacity
    from internvl_modal.planning.plan import Plan as Plan
    from internvl_modal.protocol.endpoint import Backend as Backend
    from internvl_modal.protocol.endpoint import Capabilities as Capabilities
    from internvl_modal.protocol.endpoint import Endpoint as Endpoint
    from internvl_modal.reports.comparison import Comparison as Comparison
    from internvl_modal.reports.comparison import compare as compare
    from internvl_modal.reports.gallery import write_gallery as write_gallery
    from internvl_modal.schema.inputs import ImageInputs as ImageInputs
    from internvl_modal.schema.inputs import ImageSource as ImageSource
    from internvl_modal.schema.inputs import Message as Message
    from internvl_modal.schema.options import DescribeOptions as DescribeOptions
    from internvl_modal.schema.options import Detail as Detail
    from internvl_modal.schema.options import Options as Options
    from internvl_modal.schema.results import Description as Description
    from internvl_modal.schema.results import Estimate as Estimate
    from internvl_modal.schema.results import ImageInfo as ImageInfo
    from internvl_modal.schema.results import Timings as Timings
    from internvl_modal.schema.results import Usage as Usage
    from internvl_modal.settings import Settings as Settings
    from internvl_modal.transport.retry import Retry as Retry
    from internvl_modal.weights.cache import WeightsCache as WeightsCache
    from internvl_modal.weights.inventory import CachedModel as CachedModel
    from internvl_modal.weights.progress import DownloadProgress as DownloadProgress
    from internvl_modal.weights.verification import Verification as Verification

__version__ = "0.1.0"

# The same list as the imports above, which type checkers read and Python does not run.
_HOMES = {
    "_utils.user_warning": ["InternVLWarning"],
    "backends.endpoint": ["EndpointBackend"],
    "backends.lmdeploy": ["LMDeployBackend"],
    "backends.local": ["LocalBackend"],
    "backends.modal": ["ModalBackend"],
    "batch.iterate": ["AsyncBatch", "Batch"],
    "batch.options": ["BatchOptions"],
    "batch.outcome": ["Outcome"],
    "batch.progress": ["BatchProgress", "Progress"],
    "captions.answer": ["Answer"],
    "captions.boxes": ["Box", "Located"],
    "captions.presets.base": ["Preset"],
    "captions.presets.lora": ["lora"],
    "captions.presets.registry": ["PRESETS"],
    "captions.rules": ["RULES", "Rule"],
    "client.aio": ["AsyncClient"],
    "client.shortcuts": [
        "adescribe",
        "adescribe_many",
        "alocate",
        "describe",
        "describe_many",
        "locate",
    ],
    "client.streams": ["AsyncStream", "Stream"],
    "client.sync": ["Client"],
    "deployment.api": ["aconnect", "adeploy", "connect", "deploy"],
    "deployment.billing": ["Billed", "DeploymentCost", "Stats"],
    "deployment.handle": ["Deployment"],
    "deployment.managed": ["Status"],
    "deployment.remote_batch": ["Mapped"],
    "errors": errors.__all__,
    "planning.api": ["plan"],
    "planning.cost": ["Cost", "Prices"],
    "planning.memory": ["Capacity"],
    "planning.plan": ["Plan"],
    "protocol.endpoint": ["Backend", "Capabilities", "Endpoint"],
    "reports.comparison": ["Comparison", "compare"],
    "reports.gallery": ["write_gallery"],
    "schema.inputs": ["ImageInputs", "ImageSource", "Message"],
    "schema.options": ["DescribeOptions", "Detail", "Options"],
    "schema.results": ["Description", "Estimate", "ImageInfo", "Timings", "Usage"],
    "settings": ["Settings"],
    "transport.retry": ["Retry"],
    "weights.cache": ["WeightsCache"],
    "weights.inventory": ["CachedModel"],
    "weights.progress": ["DownloadProgress"],
    "weights.verification": ["Verification"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605 - a test compares it with the imports above


# PEP 562. A name is bound in the module when it is first asked for, so later uses cost nothing.
def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
