"""What a preset is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from internvl_modal.captions.answer import Answer
from internvl_modal.captions.rules import Rule, flags
from internvl_modal.schema.options import Options

__all__ = ["Preset"]


def _as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True)
class Preset:
    """A prompt, what goes with it, and the rules that its answers must keep.

    An answer that breaks a rule is asked for again, ``tries`` times in all, with ``again`` behind
    the prompt; then it is an AnswerFlaggedError, which keeps the text. Nothing is ever cut.

    >>> short = Preset("short", "Describe this image in one sentence.", options={"max_tokens": 60})
    >>> short.asked("A cat", ("cut",)) == short.prompt
    True
    """

    name: str
    prompt: str
    options: Options = field(default_factory=Options)
    """Those of the call win over these."""
    rules: tuple[Rule, ...] = ()
    finish: Callable[[str], str] = _as_it_is
    """What is made of an answer before it is checked, such as a trigger word put before it."""
    again: str = ""
    """Said when it is asked again; {text} is the answer, {characters} its length."""
    tries: int = 3
    extra: str = ""
    """What else makes its captions others than those of the same prompt, such as a trigger word."""

    @property
    def mark(self) -> list[str]:
        """What a run is known by: with another one, pictures are asked about again."""
        return [self.name, self.extra]

    def checked(self, answer: Answer) -> tuple[str, ...]:
        """The rules that a finished answer breaks."""
        return flags(answer, self.rules)

    def asked(self, text: str, broken: tuple[str, ...], prompt: str | None = None) -> str:
        """The prompt after ``text`` has broken rules; "" is asked for as the first time."""
        first = prompt or self.prompt
        if not self.again or not text.strip():
            return first
        told = self.again.replace("{characters}", str(len(text))).replace("{text}", text[:500])
        return f"{first}\n\n{told}"
