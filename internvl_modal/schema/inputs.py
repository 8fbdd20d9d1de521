"""Pictures and messages as callers give them.

Sources are typed by what they can do and not by class: numpy, torch's numpy views and PIL need not
be installed for a type checker to accept them, and ``images.sources`` decides at run time what each
one is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    model_validator,
)

from internvl_modal.schema.validation import FrozenModel

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


DEFAULT_PROMPT = "Describe this image in detail."


@runtime_checkable
class BinaryFile(Protocol):
    """Anything with a ``read()`` that returns bytes.

    Read from where it stands, and never closed: whoever opened it may want it again.
    """

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all of them by default."""
        ...


class ArrayInterface(Protocol):
    """What PIL images and numpy arrays have in common; neither package is needed to say so."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Shape, type and address of the pixels, as numpy defines it."""
        ...


ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | ArrayInterface
)
"""A path, an http(s) or data URL, encoded bytes, a binary file, a PIL image or a numpy array."""

ImageInputs: TypeAlias = ImageSource | Sequence[ImageSource]
"""One picture, or several that belong to one question.

A list or tuple counts as several; an array is one picture, although it is a sequence as well.
"""


def _as_tuple(_: object, schema_of: GetCoreSchemaHandler) -> CoreSchema:
    """Validate a sequence as a tuple of anything: pictures are looked at when they are prepared.

    With the annotation itself pydantic would try to build a schema for every kind of source, and
    would copy arrays.
    """
    return schema_of(tuple[Any, ...])


class Message(FrozenModel):
    """One turn of a conversation; pictures only in the user's turns.

    Mappings are taken in its place wherever messages are, with OpenAI's ``content`` for ``text``.
    Raises pydantic's ValidationError; flows turn it into ConfigError.

    >>> Message.model_validate({"role": "user", "content": "What is this?"}).text
    'What is this?'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    # Only the user's turns may hold pictures: templates of InternVL put a picture's tokens into the
    # user's turn, and what an assistant "showed" would be read as the next question's.
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
