"""From what a caller gives to turns whose pictures are ready to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import ValidationError

from internvl_modal.errors import ConfigError
from internvl_modal.images.encode import prepare
from internvl_modal.images.fetch import fetch
from internvl_modal.protocol.dialects.registry import _tiling
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.inputs import DEFAULT_PROMPT, ImageSource, Message
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.validation import explain
from internvl_modal.transport.exchange import remaining

if TYPE_CHECKING:
    from internvl_modal.images.encode import PreparedImage


FETCH_TIMEOUT = 30.0
"""Seconds to download one picture, or less where the call's deadline is nearer."""


IMAGES: TypeAlias = "ImageSource | Sequence[ImageSource]"


def one_turn(image: IMAGES, prompt: str | None) -> tuple[Message]:
    """The one message of a description; raises ConfigError without a picture or with odd text."""
    images = tuple(image) if isinstance(image, list | tuple) else (image,)
    if not images:
        raise ConfigError("no picture was given", hint="pass at least one")
    if not isinstance(prompt, str | None):
        raise ConfigError(
            f"prompt={prompt!r:.60} is not a text", hint="several pictures go into one list"
        )
    return (Message(role="user", text=prompt or DEFAULT_PROMPT, images=images),)


def checked_messages(messages: Sequence[Message | Mapping[str, object]]) -> tuple[Message, ...]:
    """``messages`` as models, the last of them the question; raises ConfigError."""
    try:
        checked = tuple(Message.model_validate(message) for message in messages)
    except (ValidationError, TypeError) as error:
        wrong = explain(error) if isinstance(error, ValidationError) else error
        raise ConfigError(
            f"messages: {wrong}", hint="a list of {'role': ..., 'text': ..., 'images': [...]}"
        ) from error
    if not checked or checked[-1].role != "user":
        raise ConfigError("messages must end with one of role 'user'", hint="add the question")
    return checked


def prepared_turns(
    messages: Sequence[Message],
    options: DescribeOptions,
    capabilities: Capabilities,
    label: Any,
    deadline: float,
) -> tuple[Turn, ...]:
    """Read, turn, shrink and encode every picture."""

    def ready(source: ImageSource) -> PreparedImage:
        return prepare(
            source,
            detail=options.detail,
            tiling=_tiling(capabilities),
            background=options.background,
            timeout=min(FETCH_TIMEOUT, remaining(deadline)),
            max_pixels=options.max_pixels,
            max_bytes_decoded=options.max_bytes_decoded,
            allow_private_urls=options.allow_private_urls,
            user_agent=options.user_agent,
            fetch=fetch,
        )

    system = (Turn("system", options.system),) if options.system else ()
    turns = [
        Turn(message.role, message.text, tuple(map(ready, message.images)), label)
        for message in messages
    ]
    return (*system, *turns)
