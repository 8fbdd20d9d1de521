"""Rules about length and form that presets share."""

from __future__ import annotations

import re
from collections.abc import Callable

from internvl_modal.captions.answer import Answer
from internvl_modal.captions.endings import is_unfinished

__all__ = ["TooLong", "TooManyTokens", "Unfinished", "estimated_tokens"]


class TooLong:
    """More characters than there is room for."""

    name = "too-long"

    def __init__(self, characters: int) -> None:
        self.characters = characters

    def broken(self, answer: Answer) -> bool:
        """Whether the text has more, as Python counts them: code points."""
        return len(answer.text) > self.characters


class Unfinished:
    """No whole sentences: the end has no full stop, or the server cut it."""

    name = "unfinished"

    def broken(self, answer: Answer) -> bool:
        """Whether it ends like a sentence in no language."""
        text = answer.text.rstrip()
        ended = re.search(r"[.!?…。！？।؟][\"'”’»」』)]*\Z", text)
        return not ended or answer.finish_reason == "length" or is_unfinished(text)


class TooManyTokens:
    """More tokens than a trainer's text encoder reads; the rest would be dropped in silence."""

    name = "too-many-tokens"

    def __init__(self, tokens: int, count: Callable[[str], int] | None = None) -> None:
        self.tokens, self._count = tokens, count or estimated_tokens

    def broken(self, answer: Answer) -> bool:
        """Whether the text has more than ``tokens``, by the caller's tokenizer or the estimate."""
        return self._count(answer.text) > self.tokens


def estimated_tokens(text: str) -> int:
    """Tokens of ``text``, rather too many than too few: for CLIP's tokenizer, and T5's.

    Every three letters of a word begin another token; a letter with an accent is two more, one of
    Chinese or Japanese three, a digit or sign one. Half too many for English, and never too few of
    300 captions in nine languages that CLIP's own tokenizer has counted.

    >>> estimated_tokens("A photograph of a dog, 12 years old.")
    15
    """
    total = 0
    for word in re.findall(r"[^\W\d_]+|\d|[^\s\w]|_", text):
        foreign = sum(not letter.isascii() for letter in word)
        if word[0] >= "\u2e80":  # where scripts without spaces begin
            total += 3 * len(word)
        elif word.isalpha():
            total += 2 * foreign + -(-len(word) // 3)
        else:
            total += 2 if foreign else 1
    return total
