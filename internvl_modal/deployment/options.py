"""What can be chosen about a deployment: arguments, then environment, then defaults.

``DeployArguments`` is what editors show, ``DeployOptions`` what is read and checked; their names
are held equal by a test.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from internvl_modal._utils.signatures import showing
from internvl_modal.deployment.container_config import NOT_THE_ENGINES
from internvl_modal.errors import ConfigError
from internvl_modal.models.support import EngineName
from internvl_modal.planning.cost import CORES, HOST_GIB
from internvl_modal.planning.options import PlanOptions
from internvl_modal.settings import errors_of_settings

PREFIX = "INTERNVL_MODAL_DEPLOY_"


class DeployArguments(PlanOptions, total=False):
    """Keyword arguments of ``deploy()`` beside those it names; see ``DeployOptions``."""

    revision: str | None
    """Branch, tag or commit of its repository."""
    family: str | None
    """The catalog's model that it was made from."""
    volume: str
    """Volume that holds the weights."""
    environment: str | None
    """Modal environment."""
    region: str | None
    """Where containers may run; costs more."""
    min_containers: int
    """GPU containers that always run."""
    max_containers: int
    """Most GPU containers: a limit to the bill."""
    buffer_containers: int
    """Spare ones while any is busy."""
    timeout: int
    """Seconds for one request."""
    startup_timeout: int | None
    """Seconds to load; by the weights' size by default."""
    download_gpu: str | None
    """GPU for the download; none is needed."""
    proxy_auth: bool
    """Ask for Modal-Key and Modal-Secret as well."""
    liveness: int
    """Silent seconds until a hanging server is ended; 0: never."""
    env: Mapping[str, str] | str
    """More variables of the engine: NAME=VALUE ..."""
    engine_args: Sequence[str]
    """Further options of the engine's server."""


FIXED = ("PATH", "PYTHONPATH", "PYTHONHOME", "HF_HUB_OFFLINE")
"""Variables that are the container's business."""


class DeployOptions(BaseSettings):
    """Every option of a deployment; each is read from ``INTERNVL_MODAL_DEPLOY_<NAME>`` too.

    Frozen, and complete with its defaults: it is what a record keeps, and what makes the same
    deployment again. Options of the plan are checked by ``Request``, which knows their ranges.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    model: str = Field("internvl2_5-78b", description="A name of the catalog or owner/name.")
    revision: str | None = Field(None, description="Branch, tag or commit of its repository.")
    family: str | None = Field(None, description="The catalog's model that it was made from.")
    gpu: str | None = Field(
        None, description="Modal's GPU string, such as A100-80GB:4; several in order of preference."
    )
    name: str | None = Field(None, description="Name of the app; multimodal-<model> by default.")
    volume: str = Field("internvl-modal-weights", description="Volume that holds the weights.")
    environment: str | None = Field(None, description="Modal environment.")
    region: str | None = Field(None, description="Where containers may run; costs more.")
    min_containers: int = Field(0, ge=0, description="GPU containers that always run.")
    # One by default: a mistake then costs one machine and not a hundred.
    max_containers: int = Field(1, ge=1, description="Most GPU containers: a limit to the bill.")
    buffer_containers: int = Field(0, ge=0, description="Spare ones while any is busy.")
    scaledown_window: int | None = Field(
        None, ge=2, le=3600, description="Idle seconds until one stops; by what a start costs."
    )
    # 86,400, a day, is Modal's own limit.
    timeout: int = Field(900, ge=10, le=86400, description="Seconds for one request.")
    startup_timeout: int | None = Field(
        None, ge=60, le=86400, description="Seconds to load; by the weights' size by default."
    )
    cpu: float = Field(
        CORES, ge=8, allow_inf_nan=False, description="CPU cores: pictures are decoded on them."
    )
    memory_gib: float = Field(
        HOST_GIB, ge=16, allow_inf_nan=False, description="GiB of host memory."
    )
    download_gpu: str | None = Field(None, description="GPU for the download; none is needed.")
    proxy_auth: bool = Field(False, description="Ask for Modal-Key and Modal-Secret as well.")
    liveness: int = Field(
        180, ge=0, le=86400, description="Silent seconds until a hanging server is ended; 0: never."
    )
    # NoDecode: pydantic-settings would demand JSON, which nobody writes into a shell.
    env: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="More variables of the engine: NAME=VALUE ..."
    )
    engine_args: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further options of the engine's server."
    )
    engine: EngineName | None = Field(
        None, description="lmdeploy-0.7.3, lmdeploy (0.18) or vllm; by the model."
    )
    images_per_request: int = Field(1, description="Pictures in one request, for the plan.")
    max_tiles: int = Field(12, description="Most tiles of a picture, for the plan.")
    prompt_tokens: int = Field(100, description="Tokens of a prompt, for the plan.")
    output_tokens: int = Field(200, description="Tokens of an answer, for the plan.")
    session_len: int | None = Field(None, ge=1, description="Tokens of one session.")
    max_batch_size: int | None = Field(None, ge=1, description="Requests at once.")
    cache_max_entry_count: float | None = Field(None, description="KV share of free GPU memory.")
    quant_policy: int = Field(0, description="Bits of the KV cache: 0 (16), 8 or 4.")
    vision_max_batch_size: int = Field(1, description="Pictures in one pass of the ViT.")

    @field_validator("gpu", mode="before")
    @classmethod
    def _joined(cls, value: object) -> object:
        """Several become one text, as the environment and an app's tags hold one."""
        listed = value.split(",") if isinstance(value, str) else value
        if not isinstance(listed, Sequence) or not all(isinstance(each, str) for each in listed):
            return value
        if not all(each.strip() for each in listed):
            raise ValueError("a GPU of the list has no name")
        return ",".join(each.strip() for each in listed)

    @field_validator("max_containers")
    @classmethod
    def _at_least_the_minimum(cls, value: int, info: Any) -> int:
        if value < info.data.get("min_containers", 0):
            raise ValueError("must be at least min_containers")
        return value

    @field_validator("env", mode="before")
    @classmethod
    def _variables(cls, value: object) -> object:
        """Those of a shell, ``A=1 B="2 3"``, are taken too."""
        if not isinstance(value, str):
            return value
        pairs = [each.partition("=") for each in shlex.split(value)]
        if any(not equals for _, equals, _ in pairs):
            raise ValueError("give NAME=VALUE, separated by spaces")
        return {name: setting for name, _, setting in pairs}

    @field_validator("env")
    @classmethod
    def _the_engines(cls, value: dict[str, str]) -> dict[str, str]:
        for name, setting in value.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in setting:
                raise ValueError(f"{name!r} is no variable")
            # Taken and then overwritten by the container it would be an option without effect.
            if name.startswith(NOT_THE_ENGINES) or name in FIXED:
                raise ValueError(f"{name} is set for the engine already")
        return value

    @field_validator("engine_args", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @classmethod
    def load(cls, **arguments: object) -> DeployOptions:
        """Options with ``arguments`` that are not None on top; raises ConfigError.

        >>> DeployOptions.load(gpu="H200:2").gpu  # doctest: +SKIP
        'H200:2'
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        if unknown := set(given) - set(cls.model_fields):
            raise ConfigError(
                f"deploy() has no option {', '.join(sorted(unknown))}",
                hint=f"options: {', '.join(cls.model_fields)}",
            )
        with errors_of_settings(PREFIX):
            return cls(**given)  # type: ignore[arg-type]

    @classmethod
    def kept(cls, options: Mapping[str, object]) -> DeployOptions:
        """Options that were checked when they were kept; the environment says nothing to them.

        Unchecked: a record of an older version may hold what is refused now, and must still open.
        """
        known = {name: value for name, value in options.items() if name in cls.model_fields}
        words = cast(list[str], known.get("engine_args", ()))
        known["engine_args"] = tuple(words)  # JSON has lists only
        return cls.model_construct(**known)  # type: ignore[arg-type]


with_deploy_arguments = showing(
    DeployArguments,
    {
        name: info.get_default(call_default_factory=True)
        for name, info in DeployOptions.model_fields.items()
    },
)
"""Shows ``**options: Unpack[DeployArguments]`` as keywords."""


def options_table() -> str:
    """All options as a Markdown table: name, default, meaning."""
    rows = ["| Option | Default | Meaning |", "|---|---|---|"]
    for name, info in DeployOptions.model_fields.items():
        plain = info.default not in (None, ()) and info.default_factory is None
        default = f"`{info.default}`" if plain else ""
        rows.append(f"| `{name}` | {default} | {info.description} |")
    return "\n".join(rows) + "\n"
