"""The gate that an answer passes: what is wrong with it, and what is tried instead.

It decides and asks nobody: ``flows.checked`` performs what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from internvl_modal.captions.answer import Answer
from internvl_modal.captions.ladder import TEMPERATURES, Rung, rungs
from internvl_modal.captions.language import known
from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.presets.registry import preset_of
from internvl_modal.captions.rules import Rule, SameText, chosen, flags
from internvl_modal.errors import AnswerFlaggedError, ConfigError
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.results import Description

__all__ = ["PASSING", "Gate", "OnFlag", "Verdict"]

OnFlag: TypeAlias = Literal["record", "retry", "fail"]


class Verdict(NamedTuple):
    """What a gate thinks of an answer: as it is to be told, and what is wrong with it."""

    answer: Description
    flags: tuple[str, ...]
    broken: tuple[str, ...] = ()
    """Rules of the preset, which must hold."""

    @property
    def all(self) -> tuple[str, ...]:
        """Both."""
        return tuple(dict.fromkeys((*self.broken, *self.flags)))


@dataclass(frozen=True)
class Gate:
    """Rules for every answer, a preset's for its own, and what is done where one is broken.

    Of one batch or call, and of one thread: the rule about the same text remembers.
    """

    rules: tuple[Rule, ...] = ()
    language: str | None = None
    on_flag: OnFlag = "record"
    preset: Preset | None = None
    same: SameText | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, quality: object, language: str | None, on_flag: OnFlag, preset: object = None
    ) -> Gate:
        """The gate of a batch; raises ConfigError for what is no rule, language or preset."""
        if language is not None and not known(language):
            raise ConfigError(
                f"language is {language!r}", hint="give a code such as 'en', 'de', 'zh' or 'ja'"
            )
        rules = chosen(quality)
        # Each batch has a memory of its own, whatever the rule that was given has seen.
        same = SameText.name in {rule.name for rule in rules}
        rest = tuple(rule for rule in rules if rule.name != SameText.name)
        return cls(rest, language, on_flag, preset_of(preset), SameText() if same else None)

    @property
    def idle(self) -> bool:
        """Whether every answer passes as it is."""
        return not self.rules and self.same is None and self.preset is None

    @property
    def climbs(self) -> bool:
        """Whether an empty answer is asked for again in another way."""
        return self.on_flag == "retry" or self.preset is not None

    def judge(self, answer: Description, prompt: str, picture: bytes | None = None) -> Verdict:
        """What is wrong with ``answer``; ``picture`` is a digest of what was asked about."""
        broken: tuple[str, ...] = ()
        if self.preset is not None:
            answer = answer.model_copy(update={"text": self.preset.finish(answer.text)})
            broken = self.preset.checked(Answer.of(answer, prompt, self.language))
        seen = Answer.of(answer, prompt, self.language)
        found = flags(seen, self.rules)
        if self.same is not None and picture is not None and self.same.broken(seen, picture):
            found = (*found, self.same.name)
        return Verdict(answer, found, broken)

    def tries(self, asked: DescribeOptions) -> Iterator[Rung]:
        """What is tried after an answer that will not do, as long as none does.

        A preset asks in other words, so the ladder's temperature need not do it alone.
        """
        if self.preset is None:
            yield from rungs(asked) if self.on_flag == "retry" else ()
            return
        for number in range(1, self.preset.tries):
            # Other words alone may bring the same answer again.
            warmer = {"temperature": TEMPERATURES[min(number, 3)], "seed": number}
            yield Rung(asked.model_copy(update=warmer), f"asked again, {number}")

    def will_do(self, verdict: Verdict) -> bool:
        """Whether nothing more is to be tried."""
        return not verdict.broken and (self.on_flag != "retry" or not verdict.flags)

    def settle(self, verdict: Verdict) -> Verdict:
        """The best there is; raises AnswerFlaggedError, with the text, where it must not pass."""
        fatal = verdict.broken or (verdict.flags if self.on_flag == "fail" else ())
        if fatal:
            raise AnswerFlaggedError(verdict.answer.text, fatal)
        return verdict

    def again(self, prompt: str, verdict: Verdict | None) -> str:
        """The prompt of the next try."""
        if self.preset is None or verdict is None:
            return prompt
        return self.preset.asked(verdict.answer.text, verdict.broken, prompt)


PASSING = Gate()
"""Every answer passes."""
