"""From what a caller gives to turns whose pictures are ready to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from internvl_modal.errors import ConfigError
from internvl_modal.models.families import Family, system_message
from internvl_modal.protocol.dialects.registry import dialect_of
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.inputs import DEFAULT_PROMPT, ImageInputs, ImageSource, Message
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.validation import explain
from internvl_modal.transport.exchange import remaining

if TYPE_CHECKING:
    from internvl_modal.images.sources import Reading
    from internvl_modal.schema.results import Estimate, PreparedImage


FETCH_TIMEOUT = 30.0
"""Seconds to download one picture, or less where the call's deadline is nearer."""


def one_turn(image: ImageInputs, prompt: str | None) -> tuple[Message]:
    """The one message of a description; raises ConfigError without a picture or with odd text.

    A tuple of pictures is several, like a list; a numpy array is not looked into.
    """
    images = tuple(image) if isinstance(image, list | tuple) else (image,)
    if not images:
        raise ConfigError("no picture was given", hint="pass at least one")
    # ``describe(a, b)`` is meant as two pictures more often than as a prompt.
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


def with_system(
    turns: tuple[Turn, ...], options: DescribeOptions, family: Family | None, model: str
) -> tuple[Turn, ...]:
    """``turns`` after the system message: the caller's, or InternVL's own where there is none.

    A system turn among the messages wins over our own, and loses against ``options.system``, which
    was given for this very call.
    """
    if options.system is None and any(turn.role == "system" for turn in turns):
        return turns
    text = system_message(family, model, options.system)
    return turns if text is None else (Turn("system", text), *turns)


def fetched(url: str, **limits: Any) -> bytes:
    """``images.fetch.fetch``; httpx, which that needs, is imported only where a URL is given."""
    from internvl_modal.images.fetch import fetch

    return fetch(url, **limits)


def _reading(options: DescribeOptions, timeout: float = FETCH_TIMEOUT) -> Reading:
    """How the sources of a call are read; ``timeout`` is in seconds, for one that is fetched."""
    return {
        "timeout": timeout,
        "max_pixels": options.max_pixels,
        "max_bytes_decoded": options.max_bytes_decoded,
        "allow_private_urls": options.allow_private_urls,
        "user_agent": options.user_agent,
        "fetch": fetched,
    }


def estimated(
    source: ImageSource, options: DescribeOptions, capabilities: Capabilities
) -> Estimate:
    """What a picture would cost; blocks, for a URL while it is fetched."""
    from internvl_modal.images.encode import estimate

    tiling = dialect_of(capabilities).tiling(capabilities, options.detail)
    return estimate(source, detail=options.detail, tiling=tiling, **_reading(options))


def prepared_turns(
    messages: Sequence[Message],
    options: DescribeOptions,
    capabilities: Capabilities,
    label: Any,
    deadline: float,
) -> tuple[Turn, ...]:
    """Read, turn, shrink and encode every picture.

    Blocks, so it is called as a step. Raises ImageError that names the picture, ConfigError for
    options, DeadlineExceededError where time is up before all are ready.
    """
    # How many pixels are worth sending depends on how the server will cut the picture.
    tiling = dialect_of(capabilities).tiling(capabilities, options.detail)

    def ready(source: ImageSource) -> PreparedImage:
        from internvl_modal.images.encode import prepare

        return prepare(
            source,
            detail=options.detail,
            tiling=tiling,
            background=options.background,
            shrink=options.shrink != "never",
            # Asked for each picture: the first may have taken most of the time.
            **_reading(options, min(FETCH_TIMEOUT, remaining(deadline))),
        )

    turns = []
    for message in messages:
        # Not map(): a StopIteration that a file raises would end it, and lose the picture.
        pictures = [ready(each) for each in message.images]
        turns.append(
            Turn(
                message.role,
                message.text,
                tuple(pictures),
                label,
                grounding=options.grounding,
            )
        )
    return tuple(turns)
