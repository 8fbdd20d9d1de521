"""What every server of a language model has in common that this package starts on GPUs.

One class an engine, one object what a server is started with. Nothing is started here, so that a
plan can print a command and the tests can hand it to the engine's own parser.

All of them list their model at ``/v1/models`` to who has a key, once they can answer; that is what
``server_process`` takes for ready.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

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
from internvl_modal.models.families import family_of
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import EngineName
from internvl_modal.protocol.dialects.registry import DIALECTS
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.schema.validation import explain

__all__ = ["EngineOptions", "Word"]

EVERYWHERE = "0.0.0.0"  # noqa: S104  # nosec B104  # a container's server is asked from outside
FOLDER = "/opt/py3/bin"
"""Where each image has the engine's command, beside a Python of the engine's own."""

Word = Annotated[str, StringConstraints(pattern=r"^[^-\s]\S*$")]
"""What a command line's parser takes for a value: no space in it and no dash before it."""


class EngineOptions(BaseModel, ABC):
    """What a server is started with; the combinations that it cannot run are refused.

    A model is a folder or a repository on the Hub; what is known of it by its name is checked
    too. None leaves a choice to the engine.

    Frozen: a deployment compares what it would start with what is running. Made with ``parse``,
    which speaks of all wrong options at once and masks keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    engine: ClassVar[EngineName]
    """Its name in ``engine=``."""
    title: ClassVar[str]
    """For messages."""
    program: ClassVar[str]
    """The command that starts it."""
    dialect: ClassVar[str]
    """How it is spoken to: a name in ``protocol.dialects.registry``."""
    image: ClassVar[str]
    """The container image that has it."""
    variables: ClassVar[Mapping[str, str]] = {}
    """What its environment needs in a container, beside the image's own."""
    caches: ClassVar[Mapping[str, str]] = {}
    """Volumes in which it keeps what it compiles, by path."""
    key_option: ClassVar[str]
    """Takes its keys."""
    ours: ClassVar[Mapping[str, str]]
    """Options that are chosen here, and where."""
    further: ClassVar[tuple[str, ...]]
    """The rest of its ``--help``, but for those that would let it answer elsewhere."""

    model: str = Field(pattern=r"^[^-]")
    model_name: Word | None = None
    """Name that clients ask for; the engines' own default is the path."""
    tp: int = Field(1, ge=1)
    """GPUs that share the language model."""
    session_len: int | None = Field(None, ge=1)
    """Most tokens of one request and its answer."""
    max_batch_size: int | None = Field(None, ge=1)
    """Requests at once."""
    server_name: Word = EVERYWHERE
    server_port: int = Field(23333, ge=1, le=65535)
    api_keys: tuple[SecretStr, ...] = ()
    """Keys it accepts. The engines take several on their command line only; ``EngineServer`` hands
    them over so that no list of processes shows them."""

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
        # TurboMind asserts it, but only once it has been started; Modal rents no other numbers.
        if self.tp & (self.tp - 1):
            raise ValueError(f"tp={self.tp} is not a power of two")
        if spec := find_model(self.model.rstrip("/").rpartition("/")[2]):
            self.check_model(spec)
        return self

    def check_model(self, spec: ModelSpec) -> None:
        """Refuse what the engine would only find out after loading for minutes; raises ValueError.

        Models that are not in the catalogue are let through: nothing is known of them here.
        """
        heads, kv_heads, tp = spec.llm.heads, spec.llm.kv_heads, self.tp
        # turbomind/deploy/target_model/base.py, vllm/config/model.py: KV heads are repeated where
        # tp is a multiple of them.
        if heads % tp or (kv_heads % tp and tp % kv_heads):
            raise ValueError(f"tp={tp} does not divide the {heads} heads of {spec.name}")

    @classmethod
    def parse(cls, *, api_keys: Sequence[str | SecretStr] = (), **options: object) -> Self:
        """Check ``options``; raises ConfigError that names each wrong one, keys masked."""
        options["api_keys"] = [SecretStr(k) if isinstance(k, str) else k for k in api_keys]
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise ConfigError(explain(error), hint=f"see {cls.__name__}") from error

    @classmethod
    def check_arguments(cls, arguments: Sequence[str]) -> None:
        """Refuse what is no further option of the server; raises ConfigError.

        argparse takes abbreviations and lets the later of two options win: the server could differ
        from its plan, and nobody would know. Options that move the server are no further ones, as
        the client would wait at the old address.
        """
        # Values may follow options in words of their own; only the first word can be seen to be
        # wrong.
        if arguments and not arguments[0].startswith("--"):
            raise ConfigError(f"engine_args: {arguments[0]!r} is the value of no option")
        for name in (each.partition("=")[0] for each in arguments if each.startswith("-")):
            if name in cls.ours:
                raise ConfigError(
                    f"engine_args: {name} has a place of its own",
                    hint=f"leave it out: {cls.ours[name]}",
                )
            if name not in cls.further:
                raise ConfigError(
                    f"engine_args: {cls.title} has no {name}",
                    hint=f"one of {', '.join(cls.further)}",
                )

    @classmethod
    def build(cls, *, flash_attention: bool) -> tuple[str, ...]:
        """Commands that add to its image what InternVL needs; ``flash_attention`` where the GPU
        has what flash-attn 2 asks for.
        """
        del flash_attention
        return ()

    @classmethod
    def capabilities(cls, model: str) -> Capabilities:
        """How a server of ``model`` that was started here differs from others."""
        return DIALECTS[cls.dialect].capabilities(family_of(model))

    def argv(self, executable: str | None = None) -> list[str]:
        """The command line; it holds the keys."""
        return [*self.command(executable), *self.key_arguments]

    @property
    def key_arguments(self) -> list[str]:
        """The end of the command line: the keys.

        Apart from ``command``, so that who starts the process can hand them over unseen.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if len(keys) == 1:
            return [f"{self.key_option}={keys[0]}"]  # this form takes a leading dash
        return [self.key_option, *keys] if keys else []

    def command(self, executable: str | None = None) -> list[str]:
        """The command line without the keys.

        Options that are None are left out, as the engines have defaults that depend on the GPU;
        True is a switch.
        """
        command = [executable or self.program, *self.words()]
        for name, value in self.given().items():
            if value is True:
                command.append(name)
            elif value is not None and value is not False:
                command += [name, str(value)]
        return command

    @abstractmethod
    def words(self) -> tuple[str, ...]:
        """What stands between the command and its options, the model among it."""

    @abstractmethod
    def given(self) -> Mapping[str, object]:
        """Its options by their own names."""
