"""An answer as the rules see it: the text, and what was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

from internvl_modal.schema.results import Description, FinishReason

Wanted: TypeAlias = Literal["sentences", "list", "transcript", "short", "other"]
"""What a prompt asks for, as far as its words say it."""

_LONGEST = 20_000
"""Characters that the rules look at: a caption is shorter, and a hostile one must cost no more."""
_QUOTED = re.compile(
    r"\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|„[^“”\n]{1,300}[“”]|«[^»\n]{1,300}»|「[^」\n]{1,300}」"
    r"|『[^』\n]{1,300}』|《[^》\n]{1,300}》|`[^`\n]{1,300}`|'(?<!\w')[^'\n]{1,300}'(?!\w)"
)
"""What the picture says, and not the model: "I can't breathe" on a sign is no refusal.

Each kind begins with its own sign, by which ``re`` skips all that quotes nothing.
"""
_WORD = re.compile(r"\w+(?:['-]\w+)*")
_DOUBLED = ("--", "''", "-'", "'-")
_BLANKS = {code: " " for code in range(128) if not re.match(r"[\w'-]", chr(code))}
"""ASCII that is in no word."""
_SHORT = re.compile(
    r"\b(one|a single|single|two|three) words?\b|\byes or no\b|\bonly (the|a|one)\b|\bjust the\b"
    r"|一个词|einem wort|un mot\b|una palabra",
    re.I,
)
_TRANSCRIPT = re.compile(
    r"\btranscri(be|pt)|\bocr\b|\b(read|extract|copy)\b.{0,40}\btext\b|\bverbatim\b"
    r"|转录|(识别|提取).{0,12}文字|文字起こし|\btranskribier|\babschreib|\btranscri(s|re)",
    re.I | re.S,
)
_LIST = re.compile(
    r"\btags?\b|\bkeywords?\b|\bcomma[- ]separated\b|\blist (of|all|the)\b|\bjson\b|标签"
    r"|\bstichwort",
    re.I,
)
_SENTENCES = re.compile(
    r"\bdescri(be|ption)|\bcaption|\bexplain\b|\btell me about\b|\bsummar|\bnarrat"
    r"|\bwrite (a|one|two|some) (\w+ )?(sentence|paragraph|text)|\bwhat do you see\b"
    r"|\bwhat is (shown|happening|going on)|\bbeschr(eib|ieb)|\bd[ée]cri[srvt]|\bdescr(iba|eva|ivi)"
    r"|\bbeschrijf|\bopisz|описа|опиши|描述|说明|說明|説明|述べ|설명|묘사|alt[- ]text",
    re.I,
)


@lru_cache(maxsize=256)  # a batch asks the same of all
def wanted(prompt: str) -> Wanted:
    """What ``prompt`` asks for.

    >>> wanted("Describe this image in detail."), wanted("Is it a cat? Answer yes or no.")
    ('sentences', 'short')
    """
    kinds: tuple[tuple[Wanted, re.Pattern[str]], ...] = (
        ("short", _SHORT),
        ("transcript", _TRANSCRIPT),
        ("list", _LIST),
        ("sentences", _SENTENCES),
    )
    return next((kind for kind, words in kinds if words.search(prompt)), "other")


@dataclass(frozen=True)
class Answer:
    """One answer; ``language`` is the one it should be in, as an ISO 639-1 code, or None.

    >>> Answer('A sign says "Sorry, I cannot".').own
    'A sign says .'
    """

    text: str
    prompt: str = ""
    finish_reason: FinishReason = "stop"
    language: str | None = None

    @classmethod
    def of(cls, description: Description, prompt: str, language: str | None = None) -> Answer:
        """What a description holds."""
        return cls(description.text, prompt, description.finish_reason, language)

    @cached_property
    def wanted(self) -> Wanted:
        """What the prompt asked for."""
        return wanted(self.prompt)

    @cached_property
    def start(self) -> str:
        """The text, without white space around it and what stands behind 20,000 characters.

        With plain apostrophes, so that patterns need only those.
        """
        return self.text.strip()[:_LONGEST].replace("’", "'")

    @cached_property
    def own(self) -> str:
        """``start`` without what it quotes."""
        return _QUOTED.sub("", self.start)

    @cached_property
    def words(self) -> list[str]:
        """Its words in lower case, without punctuation."""
        return _words(self.start.lower())


def _words(text: str) -> list[str]:
    """Runs of letters and digits, with single apostrophes and hyphens inside them."""
    if not text.isascii() or any(pair in text for pair in _DOUBLED):
        return _WORD.findall(text)
    # The same in half the time.
    return [word for each in text.translate(_BLANKS).split() if (word := each.strip("'-"))]
