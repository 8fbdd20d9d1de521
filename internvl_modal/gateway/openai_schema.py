"""What OpenAI's chat completions may say to us."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from internvl_modal.gateway.errors import RefusedError
from internvl_modal.images.names import is_url
from internvl_modal.schema.inputs import Message
from internvl_modal.schema.options import DETAIL_TILES, DescribeOptions, Detail, Options

MAX_PICTURES = 16
"""Pictures of one request: each address may hold 100 MiB, and a context few pictures."""


NEUTRAL: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "top_logprobs": (0,),
}
"""Fields that are not supported, and their values that ask for nothing."""


class _Sent(BaseModel):
    """A part of a request; what is null or empty counts as not sent."""

    model_config = ConfigDict(extra="forbid")
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no answer."""

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {
            name: item
            for name, item in value.items()
            if name not in cls.ignored and item not in (None, [], {})
        }


class ImageUrl(_Sent):
    """Where a picture is, and how closely to look at it."""

    url: str = Field(description="A data: or http(s) URL.")
    detail: Detail = "medium"

    @field_validator("url")
    @classmethod
    def _no_path(cls, url: str) -> str:
        if url[:5].lower() != "data:" and not is_url(url):
            raise ValueError("only data:, http:// and https:// URLs are read")
        return url


class ImagePart(_Sent):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(_Sent):
    """Text in a message."""

    type: Literal["text"]
    text: str = ""


class ChatMessage(_Sent):
    """One turn."""

    ignored = frozenset({"annotations", "name", "reasoning_content", "refusal"})

    role: Literal["system", "developer", "user", "assistant"]
    content: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] = []

    @field_validator("content", mode="before")
    @classmethod
    def _in_parts(cls, content: object) -> object:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def pictures(self) -> list[ImageUrl]:
        """Its pictures, in order."""
        return [part.image_url for part in self.content if isinstance(part, ImagePart)]

    @property
    def turn(self) -> Message:
        """The same as the client takes it."""
        texts = [part.text for part in self.content if isinstance(part, TextPart)]
        role: Any = "system" if self.role == "developer" else self.role
        images = tuple(picture.url for picture in self.pictures)
        return Message(role=role, text="\n".join(texts), images=images)


class StreamOptions(_Sent):
    """What a stream shall tell besides text."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatBody(_Sent):
    """The body of ``POST /v1/chat/completions``."""

    model_config = ConfigDict(extra="allow")
    ignored = frozenset(
        {
            "metadata",
            "parallel_tool_calls",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
        }
    )

    model: str = ""
    messages: list[ChatMessage]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = Field(None, description="0, greedy, by default.")
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    repetition_penalty: float | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @field_validator("messages")
    @classmethod
    def _question(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "user":
            raise ValueError("must end with one of role 'user'")
        pictures = sum(len(message.pictures) for message in messages)
        if pictures > MAX_PICTURES:
            raise ValueError(f"{pictures} pictures are more than {MAX_PICTURES}; leave some out")
        return messages

    @property
    def options(self) -> Options:
        """The options as the client takes them; the finest ``detail`` of all pictures."""
        names = ("temperature", "top_p", "top_k", "seed", "stop", "repetition_penalty")
        given = {name: getattr(self, name) for name in names}
        newer = self.max_completion_tokens
        given["max_tokens"] = self.max_tokens if newer is None else newer
        details = [picture.detail for message in self.messages for picture in message.pictures]
        given["detail"] = max(details, key=_fineness, default=None)
        return cast(Options, {name: value for name, value in given.items() if value is not None})

    def check(self) -> None:
        """Raise what is wrong with fields that cannot be honoured, or not with their values."""
        for name, value in (self.model_extra or {}).items():
            if value not in NEUTRAL.get(name, ()):
                raise unsupported(name, " with this value")
        DescribeOptions.model_validate(self.options)


def unsupported(param: str, how: str = "") -> RefusedError:
    """The error for a parameter that cannot be honoured."""
    text = f"{param!r:.100} is not supported{how}; leave it out"
    return RefusedError(422, text, param=param, code="unsupported_parameter")


def _fineness(detail: Detail) -> float:
    """Most tiles per picture; "auto" takes at most those of "medium"."""
    if isinstance(detail, int):
        return detail
    return DETAIL_TILES.get(detail, DETAIL_TILES["medium"] - 0.5)
