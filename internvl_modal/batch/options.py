"""How a batch is run, checked before anything is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from internvl_modal._utils.signatures import showing
from internvl_modal.batch.outcome import Outcome, fingerprint
from internvl_modal.batch.progress import BatchProgress
from internvl_modal.batch.prompts import Prompt, Prompts
from internvl_modal.batch.schemas import Schema, kinds_of, wanted_of
from internvl_modal.batch.sources.choice import Choice, Part
from internvl_modal.captions.gate import PASSING, Gate, OnFlag
from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.rules import Rule
from internvl_modal.errors import ConfigError
from internvl_modal.flows.typed import Wanted
from internvl_modal.protocol.structured_output import EXTRACT_PROMPT
from internvl_modal.schema.inputs import DEFAULT_PROMPT
from internvl_modal.schema.options import DescribeOptions, Options, listed
from internvl_modal.schema.validation import explain

Out: TypeAlias = str | os.PathLike[str] | Callable[[Outcome], object]


class BatchOptions(Options, total=False):
    """Keyword options of ``describe_many``: those of ``describe``, and how the batch is run."""

    concurrency: int | Literal["auto"]
    """Requests under way at once."""
    max_concurrency: int | None
    """Most that 'auto' may try."""
    out: Out | None
    """A .jsonl or .parquet path, a folder, or a callable."""
    resume: bool
    """Skip what `out` holds; False starts it anew."""
    retry_errors: bool
    """Try again what failed in an earlier run."""
    on_error: Literal["record", "raise"]
    """'raise' stops at one."""
    ordered: bool
    """Outcomes in the order of the inputs."""
    dedupe: bool
    """Describe what is sent as the same bytes once."""
    column: str | None
    """Column of the table that holds the pictures."""
    key: str | None
    """Column of the table that holds the keys."""
    delimiter: str | None
    """What divides CSV."""
    pages: str | int | Sequence[int] | None
    """Pages of a PDF, as in '1-20'."""
    limit: int | None
    """Only the first so many inputs."""
    sample: int | None
    """Only so many inputs, drawn by `seed`."""
    import_: object
    """Captions of others: a table, a folder of texts, or a mapping of keys to them."""
    prompts: Mapping[str, Prompt] | None
    """Several prompts by name."""
    prompt_column: str | None
    """Column of the table that holds the prompts."""
    schema: Schema | None
    """A pydantic model or a JSON schema that answers must fit."""
    repairs: int
    """How often an answer that does not fit is sent back."""
    quality: bool | Sequence[str | Rule]
    """Rules that flag answers: True all, False none, or a list."""
    on_flag: OnFlag
    """'retry' asks again for what is flagged, 'fail' makes it a failure."""
    language: str | None
    """Language that answers must be in, as in 'en'."""
    preset: str | Preset | None
    """What the captions are for, as in 'alt-text'."""
    max_usd: float | None
    """Most that the machine may cost."""
    usd_per_hour: float | None
    """What the machine costs, where that is not known."""
    grace: float
    """Seconds for requests under way when stopped."""
    progress: bool | Callable[[BatchProgress], object] | None
    """None: a bar on terminals; or a bool or a callable."""


class BatchSettings(BaseModel):
    """How a batch runs, apart from how each picture is described."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: Literal["auto"] | int = Field("auto", description="Requests under way at once.")
    max_concurrency: int | None = Field(None, ge=1, description="Most that 'auto' may try.")
    out: Any = Field(None, description="A .jsonl or .parquet path, a folder, or a callable.")
    resume: bool = Field(True, description="Skip what `out` holds; False starts it anew.")
    retry_errors: bool = Field(False, description="Try again what failed in an earlier run.")
    on_error: Literal["record", "raise"] = Field("record", description="'raise' stops at one.")
    ordered: bool = Field(False, description="Outcomes in the order of the inputs.")
    dedupe: bool = Field(False, description="Describe what is sent as the same bytes once.")
    column: str | None = Field(None, description="Column of the table that holds the pictures.")
    key: str | None = Field(None, description="Column of the table that holds the keys.")
    delimiter: str | None = Field(None, max_length=1, min_length=1, description="What divides CSV.")
    pages: str | int | tuple[int, ...] | None = Field(
        None, description="Pages of a PDF, as in '1-20'."
    )
    limit: int | None = Field(None, ge=1, description="Only the first so many inputs.")
    sample: int | None = Field(None, ge=1, description="Only so many inputs, drawn by `seed`.")
    import_: Any = Field(
        None,
        description="Captions of others: a table, a folder of texts, or a mapping of keys to them.",
    )
    prompts: Any = Field(None, description="Several prompts by name.")
    prompt_column: str | None = Field(
        None, description="Column of the table that holds the prompts."
    )
    schema_: Any = Field(
        None, alias="schema", description="A pydantic model or a JSON schema that answers must fit."
    )
    repairs: int = Field(2, ge=0, description="How often an answer that does not fit is sent back.")
    quality: Any = Field(
        True, description="Rules that flag answers: True all, False none, or a list."
    )
    on_flag: OnFlag = Field(
        "record",
        description="'retry' asks again for what is flagged, 'fail' makes it a failure.",
    )
    language: str | None = Field(None, description="Language that answers must be in, as in 'en'.")
    preset: Any = Field(None, description="What the captions are for, as in 'alt-text'.")
    max_usd: float | None = Field(None, gt=0, description="Most that the machine may cost.")
    usd_per_hour: float | None = Field(
        None, gt=0, description="What the machine costs, where that is not known."
    )
    # Seconds: what a picture takes, and less than a container gets after SIGTERM.
    grace: float = Field(20.0, ge=0, description="Seconds for requests under way when stopped.")
    progress: Any = Field(None, description="None: a bar on terminals; or a bool or a callable.")


BatchOptions.__doc__ = f"{BatchOptions.__doc__}{listed(DescribeOptions)}{listed(BatchSettings)}"

with_batch_options = showing(
    BatchOptions,
    {
        info.alias or name: info.default
        for model in (DescribeOptions, BatchSettings)
        for name, info in model.model_fields.items()
    },
)
"""Shows ``**options: Unpack[BatchOptions]`` as keywords."""


@dataclass(frozen=True)
class Job:
    """What to ask of every picture, and how to run.

    ``options`` go to the client as they are given, ``checked`` are the same with defaults.
    """

    prompts: Prompts
    options: Options
    checked: DescribeOptions
    settings: BatchSettings
    wanted: Wanted[Any] | None = None
    """What an answer must hold, where one is asked for."""
    gate: Gate = PASSING
    """What answers in words must pass."""

    @property
    def choice(self) -> Choice:
        """What is said of columns."""
        said, asked = self.settings, self.prompts
        return Choice(
            said.column, said.key, said.delimiter, said.pages, asked.fields, asked.of_rows
        )

    @property
    def columns(self) -> dict[str, str]:
        """Fields of answers in a line, and their kinds."""
        fields = {} if self.wanted is None else kinds_of(self.wanted.document)
        return dict.fromkeys(self.prompts.names, "string") | fields

    @property
    def part(self) -> Part:
        """What of the source is read."""
        return Part(self.settings.limit, self.settings.sample, self.checked.seed or 0)

    def run(self, model: str) -> str:
        """The fingerprint of asking this of ``model``."""
        asked = self.prompts.document
        if self.wanted is not None:
            asked = {"asked": asked, "schema": self.wanted.document}
        if self.gate.preset is not None:
            asked = {"asked": asked, "preset": self.gate.preset.mark}
        return fingerprint(asked, self.checked, model)

    @classmethod
    def parse(cls, prompt: Prompt | None, given: BatchOptions) -> Job:
        """Tell the two kinds of options apart and check both; raises ConfigError."""
        rest: dict[str, Any] = dict(given)
        names = [info.alias or name for name, info in BatchSettings.model_fields.items()]
        mine = {name: rest.pop(name) for name in list(rest) if name in names}
        options = cast(Options, rest)
        try:
            settings = BatchSettings.model_validate(mine)
        except ValidationError as error:
            raise ConfigError(explain(error), hint="docs/batches.md lists the options") from error
        if settings.concurrency != "auto" and settings.concurrency < 1:
            raise ConfigError("concurrency is below 1", hint="give a count or 'auto'")
        if settings.limit is not None and settings.sample is not None:
            raise ConfigError("limit= and sample= are given", hint="give one of them")
        gate = Gate.of(settings.quality, settings.language, settings.on_flag, settings.preset)
        if gate.preset is not None:
            options = cast(Options, {**gate.preset.options, **options})
        checked = DescribeOptions.parse(options, names)
        wanted = wanted_of(settings.schema_, settings.repairs)
        if wanted is not None and settings.prompts is not None:
            raise ConfigError(
                "schema= and prompts= are given", hint="make the prompts fields of the schema"
            )
        if gate.preset is not None and (wanted is not None or settings.prompts is not None):
            raise ConfigError("preset= is given, and schema= or prompts=", hint="give one of them")
        default = EXTRACT_PROMPT if wanted is not None else DEFAULT_PROMPT
        asked = Prompts.parse(
            prompt,
            settings.prompts,
            settings.prompt_column,
            default=gate.preset.prompt if gate.preset is not None else default,
        )
        return cls(asked, options, checked, settings, wanted, gate)
