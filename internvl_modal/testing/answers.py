"""What a fake was asked, and what it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from internvl_modal.errors import ConfigError

__all__ = ["Answer", "Answers", "Call", "Script"]


@dataclass(frozen=True)
class Call:
    """One request for an answer, as it arrived."""

    prompt: str
    """Of the last turn, without the marks that say where its pictures are."""
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    """Those of all turns as they were sent: a PNG or JPEG each, shrunk to what the model sees."""
    system: str | None = None
    """The system message; InternVL's own where the caller gave none."""
    model: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    """All other fields of the request under the server's names: ``max_tokens``, ``top_p``."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """With names in lower case; the key is in ``authorization``."""
    messages: Sequence[Mapping[str, object]] = field(default=(), repr=False)
    """The turns in OpenAI's form, pictures as ``data:`` URLs."""


@dataclass(frozen=True)
class Answer:
    """One answer, and what goes wrong with it; ``Answer("")`` is the empty one.

    >>> Answer(status=429, retry_after=0).status
    429
    """

    text: str = "A picture."
    """The description, or the words of the error where ``status`` is one."""
    status: int = 200
    """HTTP status; from 400 on the answer is an error document, as engines write it."""
    retry_after: float | None = None
    """Seconds in the header ``Retry-After``."""
    finish_reason: str = "stop"
    """"length" is an answer that ``max_tokens`` cut."""
    seen: bool = True
    """False: the tokens are counted as if no picture could be loaded (ImageNotSeenError)."""
    delay: float = 0.0
    """Seconds before the first byte."""
    cut: bool = False
    """Whether the connection ends in the middle of the text."""

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599 or self.delay < 0:
            raise ConfigError(
                f"status={self.status}, delay={self.delay}", hint="200 to 599, and 0 s or more"
            )


Answers: TypeAlias = str | Answer | Sequence["str | Answer"] | Callable[[Call], "str | Answer"]
"""One answer for every call, a list with one for each call, or a function of the call."""


class Script:
    """What is answered, and what was asked so far; used by several threads at once.

    Tries are calls: what the client sends again takes the list's next answer. A call for which the
    list has none left is refused, so that a test fails in place of going on with an old answer.
    """

    def __init__(self, answers: Answers) -> None:
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        self._next = 0
        self.will(answers)

    def will(self, answers: Answers) -> None:
        """Answer like this from now on; raises ConfigError for what is no answer."""
        listed = isinstance(answers, Sequence) and not isinstance(answers, str)
        for one in answers if listed and isinstance(answers, Sequence) else [answers]:
            if not isinstance(one, str | Answer) and (listed or not callable(one)):
                raise ConfigError(
                    f"an answer is of type {type(one).__name__}",
                    hint="pass a str or an Answer, a list of them, or a function of the Call",
                )
        with self._lock:
            self._answers, self._next = answers, 0

    def answer(self, call: Call) -> Answer:
        """Remember ``call``, and find its answer."""
        with self._lock:
            self.calls.append(call)
            answers, number = self._answers, self._next
            self._next += 1
        if callable(answers):
            answers = answers(call)
        elif isinstance(answers, Sequence) and not isinstance(answers, str):
            if number >= len(answers):
                words = f"the fake has {len(answers)} answers, and this is call {number + 1}"
                return Answer(words, status=400)
            answers = answers[number]
        return answers if isinstance(answers, Answer) else Answer(answers)
