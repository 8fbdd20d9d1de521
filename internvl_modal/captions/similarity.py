"""How alike two captions are."""

from __future__ import annotations

import re
from collections import Counter


def token_f1(text: str, reference: str) -> float:
    """How much two texts share: F1 of their words, each counted as often as it comes.

    1 for the same words in any order, 0 for none.

    >>> token_f1("A red cup.", "a cup, red")
    1.0
    """
    ours, theirs = Counter(words_of(text)), Counter(words_of(reference))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total())


def words_of(text: str) -> list[str]:
    """The words, in small letters; of Chinese and Japanese each letter is one."""
    return re.findall(
        r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+", text.lower()
    )
