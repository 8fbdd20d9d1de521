"""What goes in and what comes out: options, descriptions, usage, estimates.

Everything here is plain data; nothing reads a file or a socket.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from internvl_modal.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from pydantic_core import CoreSchema, ErrorDetails

DEFAULT_PROMPT = "Describe this image in detail."
DETAIL_TILES = {"low": 6, "medium": 12, "high": 24}
"""Most tiles per picture for each level, as LMDeploy's InternVL preprocessing has them."""

Detail: TypeAlias = (
    Literal["low", "medium", "high", "auto"] | Annotated[int, Field(ge=1, le=40, strict=True)]
)


@runtime_checkable
class BinaryFile(Protocol):
    """Anything with a ``read()`` that returns bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all of them by default."""
        ...


ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image | NDArray[Any]"
)
"""A path, an http(s) or data URL, encoded bytes, a binary file, a PIL image or a numpy array."""


class Options(TypedDict, total=False):
    """Keyword options of every call that describes a picture."""

    detail: Detail
    max_tokens: int
    temperature: float
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: str | Sequence[str]
    repetition_penalty: float | None
    system: str | None
    timeout: float | None
    background: str
    max_pixels: int
    allow_private_urls: bool


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DescribeOptions(_Frozen):
    """The options of one call, checked before anything is sent."""

    detail: Detail = Field(
        "medium", description="Most tiles per picture: low 6, medium 12, high 24, auto or 1-40."
    )
    max_tokens: int = Field(1024, ge=1, description="Most tokens to write.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling.")
    top_k: int | None = Field(None, ge=1, description="Sample from the k likeliest tokens.")
    seed: int | None = Field(None, ge=0, lt=2**32, description="Repeats a sampled answer.")
    stop: tuple[str, ...] = Field((), max_length=8, description="Strings that end the answer.")
    repetition_penalty: float | None = Field(None, gt=0, le=2, description="1 is none.")
    system: str | None = Field(None, description="System message.")
    timeout: float | None = Field(None, gt=0, description="Seconds for the whole call.")
    background: str = Field("white", description="Colour put under transparent pixels.")
    max_pixels: int = Field(200_000_000, ge=1, description="Largest picture decoded, in pixels.")
    allow_private_urls: bool = Field(False, description="Fetch from private addresses too.")

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
    def parse(cls, options: Options, others: Iterable[str] = ()) -> DescribeOptions:
        """Check ``options``; raises ConfigError that names each wrong one.

        ``others`` are names that the call takes besides, for whoever misspells one.
        """
        known = (*cls.model_fields, *others)
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
    lines = [f"{name} ({info.default!r}): {info.description}" for name, info in fields]
    return "\n\n" + "\n".join(lines)


Options.__doc__ = f"{Options.__doc__}{listed(DescribeOptions)}"
DescribeOptions.__doc__ = f"{DescribeOptions.__doc__}{listed(DescribeOptions)}"

_OF_CLIENTS = ("backend", "base_url", "api_key", "model", "retry", "http_client")


def _instead_of(name: str, known: Sequence[str]) -> str:
    if name in _OF_CLIENTS:
        return f"it belongs to the client: Client({name}=...)"
    near = get_close_matches(name, (*known, *_OF_CLIENTS), n=1)
    return f"did you mean {near[0]}?" if near else f"options: {', '.join(known)}"


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: each field, what is wrong and the value given."""
    found: dict[str, list[str]] = {}
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"] if not _is_branch(part))
        subject, wrong = _explained(name, item)
        said = found.setdefault(subject, [])  # more than once for each branch of a union
        if said:
            wrong = wrong.removeprefix("Input should be ").partition(", ")[0]
        if wrong not in said:
            said.append(wrong)
    return "; ".join(f"{subject}{', or '.join(said)}" for subject, said in found.items())


def _explained(name: str, item: ErrorDetails) -> tuple[str, str]:
    """What one error is about, and what is wrong with it."""
    kind, given, wrong = item["type"], item["input"], item["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return f"{name} ", "is missing"
    if kind == "extra_forbidden":
        wrong = "there is no such field"
    if not name and kind in ("value_error", "json_invalid"):
        return "", wrong
    secret = _SECRET.search(name.lower()) is not None
    value = "***" if secret else "bytes" if isinstance(given, bytes) else repr(given)[:60]
    return f"{name or 'value'}={value}: ", wrong


_SECRET = re.compile(r"key|secret|password|authorization|header|(^|[._])token$|hf_token")


def _is_branch(part: object) -> bool:
    """Whether pydantic added this part of a location to tell the members of a union apart."""
    named = part in ("constrained-int", "int", "str")
    return isinstance(part, str) and (named or "[" in part or "(" in part)


class ImageInfo(_Frozen):
    """What was done to one picture and what the server is expected to see of it."""

    source: str = Field(description="Short name of the source, for messages.")
    width: int = Field(description="Pixels, as stored in the file.")
    height: int = Field(description="Pixels, as stored in the file.")
    format: str = Field(description="Format of the source, such as 'JPEG' or 'array'.")
    orientation: int = Field(1, description="EXIF orientation 1-8 that was applied.")
    frames: int = Field(1, description="Frames or pages in the file; the first is used.")
    sent_width: int = Field(description="Pixels, as sent, upright.")
    sent_height: int = Field(description="Pixels, as sent, upright.")
    sent_format: str = Field(description="Media type sent, such as 'image/jpeg'.")
    bytes_sent: int = Field(description="Size of the encoded picture before base64.")
    grid: tuple[int, int] = Field(description="Columns and rows of tiles.")
    tiles: int = Field(description="Tiles the model sees, thumbnail included.")
    tokens: int = Field(description="Prompt tokens the tiles cost.")
    max_tiles: int = Field(description="Most tiles allowed for this picture.")


class Estimate(_Frozen):
    """What describing a picture costs, known without decoding its pixels."""

    source: str
    width: int = Field(description="Pixels, upright.")
    height: int = Field(description="Pixels, upright.")
    grid: tuple[int, int]
    tiles: int
    tokens: int
    payload_bytes: int = Field(description="Expected size of the encoded picture (estimate).")
    cost_usd: tuple[float, float] | None = Field(
        None, description="USD for it on a busy deployment, at best and at worst, where known."
    )


class Usage(_Frozen):
    """Tokens, as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Timings(_Frozen):
    """Seconds spent on one call."""

    prepare: float = Field(0.0, description="Reading, turning, shrinking, encoding pictures.")
    first_token: float | None = Field(None, description="Until the first text, when streaming.")
    total: float = 0.0
    attempts: int = 1


FinishReason: TypeAlias = Literal["stop", "length"]
Seen: TypeAlias = Literal["confirmed", "unverifiable"]


class Description(_Frozen):
    """A model's answer about one or more pictures; ``str()`` gives the text."""

    text: str
    model: str
    finish_reason: FinishReason
    usage: Usage
    images: tuple[ImageInfo, ...] = ()
    seen: Seen = Field("unverifiable", description="Whether the token count proves the picture.")
    timings: Timings = Timings()
    request_id: str | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


def _as_tuple(_: object, schema_of: GetCoreSchemaHandler) -> CoreSchema:
    return schema_of(tuple[Any, ...])


class Message(_Frozen):
    """One turn of a conversation; pictures only in the user's turns."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    role: Literal["user", "assistant", "system"]
    text: str = Field("", validation_alias=AliasChoices("text", "content"))
    images: Annotated[Sequence[Any], GetPydanticSchema(_as_tuple)] = ()

    @model_validator(mode="after")
    def _pictures_from_the_user(self) -> Message:
        if self.images and self.role != "user":
            raise ValueError(
                f"a message of role {self.role!r} cannot hold pictures: put them into one of 'user'"
            )
        return self
