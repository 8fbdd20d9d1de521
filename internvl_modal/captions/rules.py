"""The quality rules: small classes that say what is wrong with an answer, or that nothing is.

A rule is any object with a ``name``, the flag that it raises, and a ``broken`` that takes an
``Answer``; yours goes into ``quality=[*ivl.RULES, Mine()]``. None of them asks a model.

>>> class NoColour:
...     name = "no-colour"
...
...     def broken(self, answer):
...         return not {"red", "green", "blue"} & set(answer.words)
>>> flags(Answer("A cat on a sofa."), [*RULES, NoColour()])
('no-colour',)
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Protocol, runtime_checkable

from internvl_modal.captions import endings, wordings
from internvl_modal.captions.answer import Answer
from internvl_modal.captions.language import is_other
from internvl_modal.errors import ConfigError
from internvl_modal.protocol.answer_warnings import repetition

__all__ = ["RULES", "Rule", "SameText", "chosen", "flags"]


@runtime_checkable
class Rule(Protocol):
    """What a rule has to have."""

    @property
    def name(self) -> str:
        """The flag."""
        ...

    def broken(self, answer: Answer) -> bool:
        """Whether ``answer`` deserves the flag."""
        ...


class Empty:
    """Nothing that can be read: white space, dots, an empty block of code."""

    name = "empty"

    def broken(self, answer: Answer) -> bool:
        """Whether no letter, digit or sign is left; a transcript may be of a single dash."""
        if re.search(r"[^\W_]", answer.text):  # as nearly always
            return False
        text = re.sub(r"[\s\u200b-\u200d\u2060\ufeff]+", "", answer.text)
        if answer.wanted == "transcript":
            return not text
        return not re.search(r"[^\W_]|[^\x00-\xff\u2000-\u206f\u3000-\u303f]", text)


class Refusal:
    """The model says that it will not or cannot, instead of saying what it sees."""

    name = "refusal"

    def broken(self, answer: Answer) -> bool:
        """Whether it begins with a refusal of its own; quoted ones are the picture's."""
        text = wordings.PREAMBLE.sub("", answer.own)[:400]
        if not wordings.REFUSALS.match(text):
            return False
        return answer.wanted != "transcript" or bool(wordings.ABOUT_PICTURES.search(text))


class OneWord:
    """One word where a sentence was asked for."""

    name = "one-word"

    def broken(self, answer: Answer) -> bool:
        """Whether a description was asked for and a single word came."""
        if answer.wanted != "sentences" or len(answer.words) != 1:
            return False
        word = answer.words[0]
        # Chinese and Japanese have no spaces: there a word is one or two characters.
        return (
            word.isascii() or len(word) <= 2 or not re.search(r"[\u3040-\u30ff\u3400-\u9fff]", word)
        )


class Cut:
    """It ends where no answer ends: ``max_tokens`` has cut it, or the server has."""

    name = "cut"

    def broken(self, answer: Answer) -> bool:
        """Whether the server says so, or the last words do."""
        if answer.finish_reason == "length":
            return True
        return answer.wanted == "sentences" and endings.is_unfinished(answer.start)


class Repetition:
    """It goes round in circles."""

    name = "repetition"

    def broken(self, answer: Answer) -> bool:
        """Whether its end is a loop, or words or sentences come again and again."""
        if repetition(answer.start) or _one_sign(answer.start):
            return True
        # A song or a form may well say the same five times.
        least = 8 if answer.wanted == "transcript" else 3
        return _loops(answer.words, least) or (
            answer.wanted != "transcript" and _same_sentences(answer.start)
        )


class Leftover:
    """Control tokens, marks of reasoning, or turns of a conversation that was not held."""

    name = "leftover"

    def broken(self, answer: Answer) -> bool:
        """Whether there are some outside quotes; boxes are none where boxes were asked for."""
        if answer.wanted == "transcript":  # the picture may show them
            return bool(wordings.AROUND.search(answer.start))
        text = answer.own
        if "<" in text and wordings.BOXES_WANTED.search(answer.prompt):
            text = wordings.BOXES.sub("", text)
        return bool(
            wordings.TOKENS.search(text)
            or wordings.MARKS.search(text)
            or (":" in text and wordings.ROLES.search(text))
            or (wordings.THOUGHTS.match(text) and not wordings.NOT_THOUGHTS.match(text))
        )


class OtherLanguage:
    """Not in the language that ``language=`` asks for; quotes and transcripts may be."""

    name = "language"

    def broken(self, answer: Answer) -> bool:
        """Whether most of it is in another one."""
        if answer.language is None or answer.wanted == "transcript":
            return False
        return is_other(answer.own, answer.language)


class Opener:
    """It begins as any caption could: "This image shows"."""

    name = "opener"

    def broken(self, answer: Answer) -> bool:
        """Whether the first words say nothing of the picture."""
        if answer.wanted == "transcript":
            return False
        return bool(wordings.OPENERS.match(wordings.PREAMBLE.sub("", answer.start)[:300]))


class SameText:
    """The same text for one picture after the other, which a stuck server gives.

    Of one batch, and of one thread. Flagged from the fourth different picture on. What it
    remembers is bounded: the last 65,536 texts, each with the first pictures that had it.
    """

    name = "same-text"

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()

    def broken(self, answer: Answer, picture: bytes | None = None) -> bool:
        """Whether three other pictures had this text; ``picture`` is a digest of this one.

        Without a picture nothing is known of others: an answer by itself is never flagged so.
        """
        if picture is None:
            return False
        # "Yes" may be true of any number of pictures, and so may the head of a form.
        if answer.wanted != "sentences" and len(answer.words) < 8:
            return False
        mark = blake2b(" ".join(answer.words or [answer.text]).encode(), digest_size=8).digest()
        pictures = self._seen.pop(mark, ())
        if picture not in pictures and len(pictures) <= _FEW:
            pictures = (*pictures, picture)
        self._seen[mark] = pictures
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return len(pictures) > _FEW and picture not in pictures[:_FEW]


_FEW = 3
"""Pictures that may share a text: a burst of one cat."""

RULES: tuple[Rule, ...] = (
    Empty(), Refusal(), OneWord(), Cut(), Repetition(), Leftover(), OtherLanguage(), Opener(),
    SameText(),
)  # fmt: skip
"""In the order in which flags are told."""


def flags(answer: Answer, rules: Iterable[Rule] = RULES) -> tuple[str, ...]:
    """The names of the rules that ``answer`` breaks; "empty" stands alone.

    >>> flags(Answer("This image shows a cat and", "Describe it."))
    ('cut', 'opener')
    """
    found = tuple(dict.fromkeys(rule.name for rule in rules if rule.broken(answer)))
    return ("empty",) if "empty" in found else found


def chosen(quality: object) -> tuple[Rule, ...]:
    """The rules that ``quality=`` means: True all, False none, or names and rules of one's own.

    Raises ConfigError for anything else.
    """
    if isinstance(quality, bool):
        return RULES if quality else ()
    if isinstance(quality, str) or not isinstance(quality, Sequence):
        raise ConfigError(f"quality is {quality!r}", hint="give True, False or a list of rules")
    named = {rule.name: rule for rule in RULES}
    found = []
    for each in quality:
        rule = named.get(each) if isinstance(each, str) else each
        if not isinstance(rule, Rule) or isinstance(rule, type):
            raise ConfigError(
                f"quality holds {each!r}, which is no rule",
                hint=f"names are {', '.join(named)}; a rule of your own has a name and a broken()",
            )
        found.append(rule)
    return tuple(found)


def _one_sign(text: str) -> bool:
    """Whether a letter or sign comes more than 150 times in a row."""
    # Each of them has one of these pieces in it, and pieces without a blank are rare.
    pieces = (text[at : at + 76] for at in range(0, len(text) - 75, 76))
    unbroken = any(" " not in piece for piece in pieces)
    return unbroken and re.search(r"([^\s\d])\1{150}", text) is not None


def _loops(words: list[str], least: int) -> bool:
    """Whether some words in a row come again ``least`` more times, 40 characters in all."""
    return any(_is_loop(run, least) for run in _frequent(words, least))


def _frequent(words: list[str], least: int) -> Iterator[list[str]]:
    """Runs of words that all come often enough to be of a loop: in a caption there are few."""
    often = {word for word, count in Counter(words).items() if count > least}
    if b"\1" * (least + 1) not in bytes(map(often.__contains__, words)):  # as nearly always
        return
    for frequent, run in groupby(words, often.__contains__):
        if frequent and len(found := list(run)) > least:
            yield found


def _is_loop(words: list[str], least: int) -> bool:
    for period in range(1, min(40, len(words) // (least + 1)) + 1):
        run = 0
        for index in range(period, len(words)):
            run = run + 1 if words[index] == words[index - period] else 0
            if run >= least * period:
                unit = words[index - period + 1 : index + 1]
                # Counting is no loop, and neither are the zeros of a table.
                if len(" ".join(unit)) * (run / period + 1) >= 40 and not "".join(unit).isdigit():
                    return True
    return False


def _same_sentences(text: str) -> bool:
    """Whether a sentence of four words and more comes four times, or is most of the text."""
    sentences = re.findall(r"[^.!?。！？\n]+", text.lower())
    told = [" ".join(words) for each in sentences if len(words := each.split()) >= 4]
    if len(told) - len(set(told)) < 2:  # as nearly always
        return False
    most = Counter(told).most_common(1)[0][1]
    return most >= 4 or (most == 3 and len(told) <= 4)
