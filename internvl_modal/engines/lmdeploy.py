"""``lmdeploy serve api_server``: its options, its process, its readiness.

Everything here is about version 0.7.3, which is pinned: later ones drop the template's name (0.15
stops on it) and rename options. Nothing is started, so the planner can print a command and the
tests can hand it to LMDeploy's own parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from internvl_modal.errors import ConfigError
from internvl_modal.models.catalogue import find_model
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.schema.validation import explain

__all__ = ["LMDeployOptions"]

EVERYWHERE = "0.0.0.0"  # noqa: S104  # nosec B104  # a container's server is asked from outside
OURS = {
    "--api-keys": "api_key=",
    "--cache-max-entry-count": "cache_max_entry_count=",
    "--chat-template": "it is InternVL's",
    "--download-dir": "the weights are on this disk",
    "--log-level": "log_level=",
    "--max-batch-size": "max_batch_size=",
    "--model-format": "it follows from the model",
    "--model-name": "it follows from the model",
    "--quant-policy": "quant_policy=",
    "--revision": "revision=",
    "--server-name": "server_name=",
    "--server-port": "server_port=",
    "--session-len": "session_len=",
    "--tp": "it follows from the GPUs",
    "--vision-max-batch-size": "vision_max_batch_size=",
}
"""Options that are chosen here, and where."""
FURTHER = (
    "--adapters",
    "--allow-credentials",
    "--allow-headers",
    "--allow-methods",
    "--allow-origins",
    "--backend",
    "--cache-block-seq-len",
    "--communicator",
    "--device",
    "--disable-fastapi-docs",
    "--dtype",
    "--eager-mode",
    "--enable-prefix-caching",
    "--max-concurrent-requests",
    "--max-log-len",
    "--max-prefill-iters",
    "--max-prefill-token-num",
    "--num-tokens-per-iter",
    "--reasoning-parser",
    "--rope-scaling-factor",
    "--tool-call-parser",
)
"""The rest of ``lmdeploy serve api_server --help`` of 0.7.3, but for those that would let it answer
elsewhere (``--proxy-url``, ``--ssl``)."""

Word = Annotated[str, StringConstraints(pattern=r"^[^-\s]\S*$")]
"""What LMDeploy's parser takes for a value: no space in it and no dash before it."""


class LMDeployOptions(BaseModel):
    """What LMDeploy 0.7.3 is started with; the combinations that it cannot run are refused.

    A model is a folder or a repository on the Hub; what is known of it by its name is checked
    too. None leaves a choice to LMDeploy.

    Frozen: a deployment compares what it would start with what is running. Made with ``parse``,
    which speaks of all wrong options at once and masks keys; used by ``LMDeployServer`` here and by
    the container on Modal.

    >>> options = LMDeployOptions.parse(model="OpenGVLab/InternVL2_5-8B", tp=2)
    >>> options.argv()[:4]
    ['lmdeploy', 'serve', 'api_server', 'OpenGVLab/InternVL2_5-8B']
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(pattern=r"^[^-]")
    model_name: Word | None = None
    """Name that clients ask for; LMDeploy's own default is the path."""
    model_format: Literal["hf", "awq", "gptq"] | None = None
    tp: int = Field(1, ge=1)
    """GPUs that share the language model."""
    session_len: int | None = Field(None, ge=1)
    """Most tokens of one request and its answer."""
    max_batch_size: int | None = Field(None, ge=1)
    cache_max_entry_count: float = Field(0.8, gt=0, lt=1)
    """Share of the memory left free by the weights that becomes the KV cache.

    Taken at once at the start, the smallest of all GPUs counting; 0.8 is LMDeploy's own default.
    """
    quant_policy: Literal[0, 4, 8] = 0
    """Bits of the KV cache; 0 is the weights' own type.

    Its kernels exist for heads that are 128 wide, so 1B and other small models cannot have it.
    """
    vision_max_batch_size: int = Field(1, ge=1)
    chat_template: Word = "internvl2_5"
    """Always given: LMDeploy would guess it from the folder's name.

    A folder that is named by a commit makes it stop with "please specify chat template".
    """
    server_name: Word = EVERYWHERE
    server_port: int = Field(23333, ge=1, le=65535)
    log_level: Literal["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"] = "ERROR"
    api_keys: tuple[SecretStr, ...] = ()
    """Keys it accepts. LMDeploy takes them from its command line only; ``LMDeployServer`` hands
    them to it so that no list of processes shows them."""

    @field_validator("api_keys")
    @classmethod
    def _keys_survive_the_parser(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Keys go through argparse, which splits nothing but takes a leading dash for an option.

        One key alone can be joined with ``=``; several are separate words, so none may look like an
        option. White space is refused as no client could send it in a header unchanged.
        """
        values = [key.get_secret_value() for key in keys]
        if any(not value or value.split() != [value] for value in values):
            raise ValueError("a key is empty or has white space in it")
        if len(values) > 1 and any(value.startswith("-") for value in values):
            raise ValueError("a key among several must not begin with a dash")
        return keys

    @model_validator(mode="after")
    def _loadable(self) -> Self:
        """What is known of the model by its last name, wherever its folder lies, must suit the
        options.
        """
        # TurboMind asserts it, but only once it has been started.
        if self.tp & (self.tp - 1):
            raise ValueError(f"tp={self.tp} is not a power of two")
        if spec := find_model(self.model.rstrip("/").rpartition("/")[2]):
            _check_model(self, spec)
        return self

    @classmethod
    def parse(cls, *, api_keys: Sequence[str | SecretStr] = (), **options: object) -> Self:
        """Check ``options``; raises ConfigError that names each wrong one, keys masked."""
        options["api_keys"] = [SecretStr(k) if isinstance(k, str) else k for k in api_keys]
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise ConfigError(explain(error), hint="see LMDeployOptions") from error

    def argv(self, executable: str = "lmdeploy") -> list[str]:
        """The command line; it holds the keys."""
        return [*self.command(executable), *self.key_arguments]

    @property
    def key_arguments(self) -> list[str]:
        """The end of the command line: the keys.

        Apart from ``command``, so that who starts the process can hand them over unseen.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if len(keys) == 1:
            return [f"--api-keys={keys[0]}"]  # this form takes a leading dash
        return ["--api-keys", *keys] if keys else []

    def command(self, executable: str = "lmdeploy") -> list[str]:
        """The command line without the keys.

        Options that are None are left out, as 0.7.3 has defaults that depend on the GPU (batch
        size).
        """
        given: dict[str, object] = {
            "--server-name": self.server_name,
            "--server-port": self.server_port,
            "--model-name": self.model_name,
            "--chat-template": self.chat_template,
            "--model-format": self.model_format,
            "--tp": self.tp,
            "--session-len": self.session_len,
            "--max-batch-size": self.max_batch_size,
            "--cache-max-entry-count": self.cache_max_entry_count,
            "--quant-policy": self.quant_policy,
            "--vision-max-batch-size": self.vision_max_batch_size,
            "--log-level": self.log_level,
        }
        command = [executable, "serve", "api_server", self.model]
        for name, value in given.items():
            if value is not None:
                command += [name, str(value)]
        return command


def check_engine_args(arguments: Sequence[str]) -> None:
    """Refuse what is no further option of LMDeploy's server; raises ConfigError.

    argparse takes abbreviations and lets the later of two options win: the server could differ from
    its plan, and nobody would know. Options that move the server (``--proxy-url``, ``--ssl``) are
    no further ones, as the client would wait at the old address.
    """
    # Values may follow options in words of their own; only the first word can be seen to be wrong.
    if arguments and not arguments[0].startswith("--"):
        raise ConfigError(f"engine_args: {arguments[0]!r} is the value of no option")
    for name in (each.partition("=")[0] for each in arguments if each.startswith("-")):
        if name in OURS:
            raise ConfigError(
                f"engine_args: {name} has a place of its own", hint=f"leave it out: {OURS[name]}"
            )
        if name not in FURTHER:
            raise ConfigError(
                f"engine_args: LMDeploy 0.7.3 has no {name}", hint=f"one of {', '.join(FURTHER)}"
            )


def _check_model(options: LMDeployOptions, spec: ModelSpec) -> None:
    """Refuse what LMDeploy would only find out after loading for minutes; raises ValueError.

    Models that are not in the catalogue are let through: nothing is known of them here.
    """
    heads, kv_heads, tp = spec.llm.heads, spec.llm.kv_heads, options.tp
    # turbomind/deploy/target_model/base.py: KV heads are repeated where tp is a multiple of them.
    if heads % tp or (kv_heads % tp and tp % kv_heads):
        raise ValueError(f"tp={tp} does not divide the {heads} heads of {spec.name}")
    if options.quant_policy and spec.llm.head_dim != 128:
        raise ValueError(
            f"quant_policy={options.quant_policy} needs heads 128 wide; "
            f"those of {spec.name} are {spec.llm.head_dim}"
        )
    if options.model_format is not None and (options.model_format == "awq") != spec.awq:
        stored = "awq" if spec.awq else "hf"
        raise ValueError(f"model_format={options.model_format!r}: {spec.name} is {stored!r}")
