"""Asking again, each time a little differently, and keeping the best answer.

Greedy decoding gives the same bad answer however often it is asked, so each rung raises the
temperature; the last one writes less, which ends a loop before it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from internvl_modal.schema.options import DescribeOptions

__all__ = ["Best", "Rung", "rungs"]

A = TypeVar("A")

TEMPERATURES = (0.0, 0.2, 0.5, 0.8)
SHORTEST = 32
"""Tokens: below that every answer is cut."""
WHOLE = 1024
"""Tokens that an answer without a limit is taken to be allowed."""
_WEIGHTS = {
    "empty": 1000,
    "refusal": 100,
    "leftover": 40,
    "language": 40,
    "repetition": 30,
    "same-text": 25,
    "one-word": 20,
    "cut": 10,
    "opener": 1,
}
"""How bad a flag is; an answer that is cut can still be read, one that refuses says nothing."""
_OTHER = 15
"""A rule of the user's own."""


@dataclass(frozen=True)
class Rung:
    """One more try: what is asked for, and what the outcome says of it."""

    options: DescribeOptions
    name: str


def rungs(asked: DescribeOptions) -> Iterator[Rung]:
    """What is tried after an answer to ``asked`` was no good.

    >>> [rung.name for rung in rungs(DescribeOptions())]
    ['temperature 0.2', 'temperature 0.5', 'temperature 0.8', 'max_tokens 512']
    """
    for number, temperature in enumerate(TEMPERATURES):
        # The caller's own temperature was the first try.
        if temperature == asked.temperature:
            continue
        seed = None if temperature == 0 else (asked.seed or 0) + number
        changed = {"temperature": temperature, "seed": seed, "top_k": None, "top_p": None}
        yield Rung(asked.model_copy(update=changed), f"temperature {temperature:g}")
    most = max(SHORTEST, (asked.max_tokens or WHOLE) // 2)
    if asked.max_tokens is None or most < asked.max_tokens:
        yield Rung(asked.model_copy(update={"max_tokens": most}), f"max_tokens {most}")


def badness(flags: Sequence[str]) -> int:
    """How bad an answer with these flags is; 0 without any."""
    return sum(_WEIGHTS.get(flag, _OTHER) for flag in flags)


class Best(Generic[A]):
    """The best of several answers; of two that are as good, the first.

    >>> best = Best("The the the the", ["repetition"])
    >>> best.offer("This image shows a cat.", ["opener"])
    >>> best.answer, best.flags
    ('This image shows a cat.', ('opener',))
    """

    def __init__(self, answer: A, flags: Sequence[str]) -> None:
        self.answer, self.flags = answer, tuple(flags)

    def offer(self, answer: A, flags: Sequence[str]) -> None:
        """One more answer."""
        if badness(flags) < badness(self.flags):
            self.answer, self.flags = answer, tuple(flags)
