"""What goes in and what comes out: options, descriptions, usage, estimates.

Everything here is plain data; nothing reads a file or a socket.

``Options`` is for type checkers and editors, ``DescribeOptions`` for checking: the same names
twice, held together by a test, since a TypedDict cannot carry ranges and a pydantic model cannot be
unpacked into keywords.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
)
from typing_extensions import TypedDict

from internvl_modal._utils.signatures import showing
from internvl_modal.errors import ConfigError
from internvl_modal.schema.validation import FrozenModel, explain

DETAIL_TILES = {"low": 6, "medium": 12, "high": 24}
"""Most tiles per picture for each level, as LMDeploy's InternVL preprocessing has them.

Tiles of 448 x 448 without the thumbnail. "medium" is also the limit in every InternVL's own config,
so that it needs nothing from a server that cannot be told a limit.
"""

Detail: TypeAlias = (
    Literal["low", "medium", "high", "auto"] | Annotated[int, Field(ge=1, le=40, strict=True)]
)
"""Strict where it is a number: True would pass for 1, and 3.0 for 3."""


Shrink: TypeAlias = Literal["auto", "always", "never"]
"""A call that is not of a batch takes "auto" for "always": there is nothing to measure."""


class Options(TypedDict, total=False):
    """Keyword options of every call that describes a picture."""

    detail: Detail
    """Most tiles per picture: low 6, medium 12, high 24, auto or 1-40."""
    max_tokens: int | None
    """Most tokens to write; None: the server's own limit."""
    temperature: float | None
    """0 is greedy; None: the server's own."""
    top_p: float | None
    """Nucleus sampling."""
    top_k: int | None
    """Sample from the k likeliest tokens."""
    seed: int | None
    """Repeats a sampled answer."""
    stop: str | Sequence[str]
    """Strings that end the answer."""
    repetition_penalty: float | None
    """1 is none."""
    system: str | None
    """System message; InternVL's own by default, '' for none."""
    grounding: bool
    """Let <ref> and <box> in a prompt mean what they mean to InternVL."""
    timeout: float | None
    """Seconds for the whole call."""
    background: str
    """Colour put under transparent pixels."""
    max_pixels: int
    """Largest picture decoded, in pixels."""
    max_bytes_decoded: int
    """Most memory to decode one picture, in bytes."""
    allow_private_urls: bool
    """Fetch from private addresses too."""
    user_agent: str | None
    """How the client names itself to fetch URLs."""
    shrink: Shrink
    """Who shrinks pictures: always here, never, or auto, which a batch measures."""


class DescribeOptions(FrozenModel):
    """The options of one call, checked before anything is sent."""

    detail: Detail = Field(
        "medium", description="Most tiles per picture: low 6, medium 12, high 24, auto or 1-40."
    )
    # 2**31 and more overflows the engines' own integers; None lets LMDeploy write until the context
    # is full, which is why it is not the default.
    max_tokens: int | None = Field(
        1024, ge=1, lt=2**31, description="Most tokens to write; None: the server's own limit."
    )
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="0 is greedy; None: the server's own."
    )
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling.")
    top_k: int | None = Field(None, ge=1, description="Sample from the k likeliest tokens.")
    # Unsigned 32 bits, as llama.cpp's seeds are; some servers take more.
    seed: int | None = Field(None, ge=0, lt=2**32, description="Repeats a sampled answer.")
    # The client looks for them itself as well, as engines ignore those that are not one token.
    stop: tuple[str, ...] = Field((), max_length=8, description="Strings that end the answer.")
    repetition_penalty: float | None = Field(None, gt=0, le=2, description="1 is none.")
    system: str | None = Field(
        None, description="System message; InternVL's own by default, '' for none."
    )
    grounding: bool = Field(
        False, description="Let <ref> and <box> in a prompt mean what they mean to InternVL."
    )
    timeout: float | None = Field(None, gt=0, description="Seconds for the whole call.")
    background: str = Field("white", description="Colour put under transparent pixels.")
    # A camera's largest picture is some 150 megapixels; a "bomb" of a few KB can claim a thousand
    # times as many.
    max_pixels: int = Field(200_000_000, ge=1, description="Largest picture decoded, in pixels.")
    max_bytes_decoded: int = Field(
        400_000_000, ge=1, description="Most memory to decode one picture, in bytes."
    )
    allow_private_urls: bool = Field(False, description="Fetch from private addresses too.")
    user_agent: str | None = Field(None, description="How the client names itself to fetch URLs.")
    shrink: Shrink = Field(
        "auto",
        description="Who shrinks pictures: always here, never, or auto, which a batch measures.",
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty stop string would end every answer at once")
        return value

    @classmethod
    def parse(
        cls, options: Options | DescribeOptions, others: Iterable[str] = ()
    ) -> DescribeOptions:
        """Check ``options``, unless they are checked; raises ConfigError that names each wrong one.

        ``others`` are names that the call takes besides, for whoever misspells one.

        >>> DescribeOptions.parse({"detail": "high"}).max_tokens
        1024
        >>> DescribeOptions.parse({"max_token": 5})
        Traceback (most recent call last):
        internvl_modal.errors.ConfigError: there is no option max_token (did you mean max_tokens?)
        """
        if isinstance(options, DescribeOptions):
            return options
        known = (*cls.model_fields, *others)
        # Before pydantic, which would not say what was meant.
        for name in options:
            if name not in known:
                raise ConfigError(f"there is no option {name}", hint=_instead_of(name, known))
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise ConfigError(explain(error), hint=f"see help({cls.__name__})") from error


def listed(model: type[BaseModel]) -> str:
    """The fields of ``model`` for a docstring: name, default and meaning."""
    fields = model.model_fields.items()
    lines = [
        f"{info.alias or name} ({info.default!r}): {info.description}" for name, info in fields
    ]
    return "\n\n" + "\n".join(lines)


# ``help(Options)`` is the reference of the options: written once, in the fields themselves.
Options.__doc__ = f"{Options.__doc__}{listed(DescribeOptions)}"
DescribeOptions.__doc__ = f"{DescribeOptions.__doc__}{listed(DescribeOptions)}"

_OF_CLIENTS = (
    "backend",
    "base_url",
    "api_key",
    "model",
    "capabilities",
    "retry",
    "http_client",
)
"""Arguments of ``Client``, which are often given to a call by mistake."""


def _instead_of(name: str, known: Sequence[str]) -> str:
    """What a caller may have meant by a name that no option has."""
    if name in _OF_CLIENTS:
        return f"it belongs to the client: Client({name}=...)"
    near = get_close_matches(name, (*known, *_OF_CLIENTS), n=1)
    return f"did you mean {near[0]}?" if near else f"options: {', '.join(known)}"


with_options = showing(
    Options, {name: info.default for name, info in DescribeOptions.model_fields.items()}
)
"""Shows ``**options: Unpack[Options]`` as keywords."""
