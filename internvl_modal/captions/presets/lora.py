"""Captions to train a LoRA with: a trigger word, and what the model shall learn left unsaid.

What a caption names stays changeable, what it leaves out is learnt with the trigger word. So the
subject's own traits are not to be named. CLIP reads 75 tokens of a caption, T5 mostly 512.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from internvl_modal._utils.short_errors import short_errors
from internvl_modal.captions.answer import Answer
from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.presets.limits import TooManyTokens
from internvl_modal.captions.rules import Cut, Empty, Leftover, Opener, Refusal, Repetition
from internvl_modal.errors import ConfigError

__all__ = ["CLIP", "lora"]

CLIP = 75
"""Tokens of a caption that CLIP reads, beside its two marks."""


class Named:
    """It names what it was asked to leave out."""

    name = "named"

    def __init__(self, words: Sequence[str]) -> None:
        found = "|".join(rf"\b{re.escape(word)}(?:s|es)?\b" for word in words)
        self._found = re.compile(found or r"(?!)", re.I)

    def broken(self, answer: Answer) -> bool:
        """Whether one of the words is in the text."""
        return bool(self._found.search(answer.text))


@short_errors
def lora(
    trigger: str = "",
    *,
    leave_out: Sequence[str] = (),
    tokens: int = CLIP,
    count: Callable[[str], int] | None = None,
) -> Preset:
    """Captions that begin with ``trigger`` and name nothing of ``leave_out``, within ``tokens``.

    ``count`` is your tokenizer's count of a text, without it a conservative estimate is taken.
    Raises ConfigError for a limit below 8 tokens or a text in place of a list.

    >>> preset = lora("ohwx dog", leave_out=["collar"])
    >>> preset.finish("A dog lies on a red sofa.")
    'ohwx dog, a dog lies on a red sofa.'
    """
    if tokens < 8:
        raise ConfigError(f"tokens is {tokens}", hint="75 for CLIP, 512 for T5")
    if isinstance(leave_out, str):
        raise ConfigError("leave_out is a text", hint="give a list of words")
    words = tokens // 2
    unsaid = f" Do not mention: {', '.join(leave_out)}." if leave_out else ""
    return Preset(
        "lora",
        f"Describe this image in at most {words} words, as a caption to train an image model with:"
        " the subject, what it does, its surroundings, the light and the style. Begin with the"
        f" subject, and not with 'The image shows'.{unsaid}",
        {"max_tokens": 2 * tokens},
        (
            Empty(),
            Refusal(),
            Cut(),
            Repetition(),
            Leftover(),
            Opener(),
            Named(leave_out),
            TooManyTokens(tokens, count),
        ),
        finish=lambda text: _behind(trigger.strip(), text.strip()),
        extra=trigger.strip(),
        again="Your last caption was: {text}\nWrite a shorter one, of at most"
        f" {words // 2} words.{unsaid}",
    )


def _behind(trigger: str, text: str) -> str:
    """``text`` behind the trigger word, unless it begins with it or there is nothing."""
    if not trigger or not text or text.lower().startswith(trigger.lower()):
        return text
    first = text.split(maxsplit=1)[0]
    article = first.lower() in ("a", "an", "the", "two", "three")
    return f"{trigger}, {text[0].lower() + text[1:] if article else text}"


PRESET = lora()
