"""What OpenAI's chat completions may say to us.

Strict models: a number in quotes or a misspelt field is refused with its place. What is null, empty
or neutral is dropped before that, since clients send such fields for every option that they know.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from internvl_modal.gateway.bodies import WHOLE
from internvl_modal.gateway.openai_parameters import (
    IGNORED,
    NEUTRAL,
    NOTHING,
    UNSET,
    is_neutral,
    unsupported,
)
from internvl_modal.images.names import is_url
from internvl_modal.schema.inputs import Message
from internvl_modal.schema.options import DETAIL_TILES, DescribeOptions, Detail, Options

MAX_PICTURES = 16
"""Pictures of one request: each address may hold 100 MiB, and a context few pictures."""
MAX_MESSAGES = 1024
"""With ``MAX_PARTS`` a bound on the work of one request, far above any conversation."""
MAX_PARTS = 256
MAX_ANSWERS = 8
"""Most that ``n`` may ask for.

Each one is a request to the model's server.
"""


class _Sent(BaseModel):
    """A part of a request; what is null counts as not sent."""

    model_config = ConfigDict(extra="forbid", strict=True)
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no answer."""

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, value: object) -> object:
        # Left to pydantic, which says what was expected.
        if not isinstance(value, dict):
            return value
        return {
            name: item
            for name, item in value.items()
            if name not in cls.ignored
            and not (item is None if name in cls._names() else is_neutral(name, item))
        }

    @classmethod
    def _names(cls) -> set[str]:
        """Fields as requests name them."""
        return {field.alias or name for name, field in cls.model_fields.items()}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        """The schema of what is taken, with what is taken and left alone."""
        schema = handler.resolve_ref_schema(handler(core))
        others: dict[str, Any] = {name: {} for name in sorted(cls.ignored)}
        schema["properties"] = {**others, **cls.neutral(), **schema["properties"]}
        if cls.model_config.get("extra") != "ignore":
            schema["additionalProperties"] = {"enum": NOTHING}
        return schema

    @classmethod
    def neutral(cls) -> dict[str, Any]:
        """Schemas of fields whose neutral values alone are taken."""
        return {}


class ImageUrl(_Sent):
    """Where a picture is, and how closely to look at it."""

    url: str = Field(
        description="A data: or http(s) URL.",
        json_schema_extra={"format": "uri"},
    )
    detail: Annotated[Detail, WHOLE] | None = "medium"

    @field_validator("url")
    @classmethod
    def _no_path(cls, url: str) -> str:
        """Refuse a path: LMDeploy would read that file from its own disk, and describe it to a
        stranger.
        """
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
    text: str | None = ""


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(_Sent):
    """One turn; pictures in the user's only."""

    ignored = frozenset({"annotations", "name", "reasoning_content", "refusal"})

    # "developer" is OpenAI's newer name for "system".
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS)] | None = None

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        """Two schemas: one of the user's turns, and one of the others, without pictures."""
        of_user = super().__get_pydantic_json_schema__(core, handler)
        other = deepcopy(of_user)
        of_user["properties"]["role"]["enum"] = ["user"]
        other["properties"]["role"]["enum"].remove("user")
        parts = next(one for one in other["properties"]["content"]["anyOf"] if "items" in one)
        parts["items"] = parts["items"]["oneOf"][0]
        return {"anyOf": [of_user, other]}

    @property
    def pictures(self) -> list[ImageUrl]:
        """Its pictures, in order."""
        return [part.image_url for part in self._parts if isinstance(part, ImagePart)]

    @property
    def turn(self) -> Message:
        """The same as the client takes it."""
        texts = [part.text or "" for part in self._parts if isinstance(part, TextPart)]
        text = self.content if isinstance(self.content, str) else "\n".join(texts)
        role: Any = "system" if self.role == "developer" else self.role
        return Message(role=role, text=text, images=tuple(one.url for one in self.pictures))

    @property
    def _parts(self) -> list[Part]:
        return self.content if isinstance(self.content, list) else []


class StreamOptions(_Sent):
    """What a stream shall tell besides text."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = False


class AnyText(_Sent):
    """An answer as it comes."""

    type: Literal["text"]


class AnyObject(_Sent):
    """An answer that is a JSON object, of a schema where one is given as llama.cpp takes it."""

    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class NamedSchema(_Sent):
    """A JSON schema of objects."""

    ignored = frozenset({"strict"})

    name: str | None = "answer"
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class SchemaObject(_Sent):
    """An answer that is a JSON object of a schema, strictly, whatever ``strict`` says."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


Format: TypeAlias = Annotated[AnyText | AnyObject | SchemaObject, Field(discriminator="type")]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**31), WHOLE]
Limit: TypeAlias = Annotated[Literal[-1] | Annotated[int, Field(ge=1, lt=2**31)], WHOLE]
Stop: TypeAlias = Annotated[str, Field(min_length=1)]


class ChatBody(_Sent):
    """The body of ``POST /v1/chat/completions``; what it leaves out is as the engine has it."""

    model_config = ConfigDict(extra="allow")
    ignored = IGNORED

    model: str | None = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Limit | None = None
    # OpenAI's newer name; it wins where both are there.
    max_completion_tokens: Limit | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: Annotated[int, Field(ge=-1, lt=2**31), WHOLE] | None = None
    seed: Annotated[int, Field(ge=-1, lt=2**32), WHOLE] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=8)] | None = None
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: Format | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS), WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_tokens: Count | None = None
    min_new_tokens: Count | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    # Not of any engine: what ``Client`` calls so.
    grounding: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_question(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("messages"), str):
            return {**value, "messages": [{"role": "user", "content": value["messages"]}]}
        return value

    @field_validator("messages")
    @classmethod
    def _question(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "user":
            raise ValueError("must end with one of role 'user'")
        # Of the whole conversation: the server is sent all of them.
        pictures = sum(len(message.pictures) for message in messages)
        if pictures > MAX_PICTURES:
            raise ValueError(f"{pictures} pictures are more than {MAX_PICTURES}; leave some out")
        return messages

    @property
    def options(self) -> Options:
        """The options as the client takes them; the finest ``detail`` of all pictures."""
        names = ("temperature", "top_p", "top_k", "seed", "stop", "repetition_penalty")
        given = {name: getattr(self, name) for name in (*names, "max_tokens", "grounding")}
        if self.max_completion_tokens is not None:
            given["max_tokens"] = self.max_completion_tokens
        # OpenAI has it for each picture, engines for a request: the finest one loses nothing.
        details = [picture.detail for message in self.messages for picture in message.pictures]
        said = [detail for detail in details if detail is not None]
        given["detail"] = max(said, key=_fineness, default=None)
        # The client's own defaults are greedy and 1,024 tokens; a caller of OpenAI's API means
        # neither.
        unset = {"temperature": None, "max_tokens": None}
        found = {
            name: value
            for name, value in given.items()
            if value is not None and value not in UNSET.get(name, ())
        }
        return cast(Options, unset | found)

    @property
    def engine(self) -> dict[str, object]:
        """What is for the server behind, under the names of OpenAI, LMDeploy and vLLM."""
        names = (
            *("logprobs", "top_logprobs", "frequency_penalty", "presence_penalty", "logit_bias"),
            *("min_p", "min_tokens", "min_new_tokens", "ignore_eos", "skip_special_tokens"),
        )
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if not is_neutral(name, value)}

    def check(self) -> None:
        """Raise what is wrong with fields that cannot be honoured, or not with their values."""
        for name in self.model_extra or {}:
            raise unsupported(name, " with this value" if name in NEUTRAL else "")
        DescribeOptions.model_validate(self.options)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        """With one text as the messages, which LMDeploy takes."""
        schema = super().__get_pydantic_json_schema__(core, handler)
        schema["properties"]["messages"] = {
            "anyOf": [schema["properties"]["messages"], {"type": "string"}]
        }
        return schema

    @classmethod
    def neutral(cls) -> dict[str, Any]:
        """Schemas of fields whose neutral values alone are taken."""
        return {
            name: {"enum": [*values, *NOTHING]}
            for name, values in NEUTRAL.items()
            if name not in cls.model_fields
        }


def _fineness(detail: Detail) -> float:
    """Most tiles per picture; "auto" takes at most those of "medium"."""
    if isinstance(detail, int):
        return detail
    return DETAIL_TILES.get(detail, DETAIL_TILES["medium"] - 0.5)
