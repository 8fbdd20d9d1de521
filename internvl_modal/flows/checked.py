"""Ask, judge the answer, and ask again where that may help: the ladder and the presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

from internvl_modal.captions.gate import Gate, Verdict
from internvl_modal.captions.ladder import Best
from internvl_modal.errors import EmptyAnswerError, ServerError, SpendLimitError
from internvl_modal.flows.steps import Flow
from internvl_modal.protocol.call import ChatCall
from internvl_modal.schema.results import Description, Usage

__all__ = ["Checked", "checked"]


class Checked(NamedTuple):
    """An answer that has passed a gate, its flags, and what was tried before or after it."""

    answer: Description
    flags: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    """All that was asked, as in "temperature 0.2: repetition", where that was more than once."""


def checked(
    call: ChatCall,
    gate: Gate,
    ask: Callable[[ChatCall], Flow[Description]],
    picture: bytes | None = None,
) -> Flow[Checked]:
    """Ask ``call`` and what the gate tries after it; the tokens of all are counted together.

    Raises AnswerFlaggedError where no answer passes, and EmptyAnswerError where all were empty.
    ``picture``: see ``Gate.judge``.
    """
    climb = _Climb(call, gate, picture)
    while True:
        try:
            answer = yield from ask(climb.call)
        except EmptyAnswerError as error:
            climb.add_empty(error)
        except (ServerError, SpendLimitError) as error:
            if climb.best is None:
                raise
            climb.note(type(error).__name__)
            break  # what there is was paid for
        else:
            climb.add(answer)
        if climb.done or not climb.up():
            break
    return climb.result()


class _Climb:
    """One picture on the ladder: the best so far, and what comes next."""

    def __init__(self, call: ChatCall, gate: Gate, picture: bytes | None) -> None:
        self.call, self._gate, self._picture = call, gate, picture
        self._prompt = call.turns[-1].text
        self._tries = gate.tries(call.options)
        self._rung, self._tried = "first", list[str]()
        self._spent: list[Usage] = []
        self._empty: EmptyAnswerError | None = None
        self.best: Best[Verdict] | None = None
        self.done = False

    def add(self, answer: Description) -> None:
        """One answer."""
        self._spent.append(answer.usage)
        verdict = self._gate.judge(answer, self._prompt, self._picture)
        if self.best is None:
            self.best = Best(verdict, verdict.all)
        self.best.offer(verdict, verdict.all)
        self.note(", ".join(verdict.all) or "good")
        self.done = self._gate.will_do(verdict)

    def add_empty(self, error: EmptyAnswerError) -> None:
        """One answer without a text."""
        self._empty = error
        self.note("empty")

    def note(self, words: str) -> None:
        """What came of the present rung."""
        self._tried.append(f"{self._rung}: {words}")

    def up(self) -> bool:
        """Go to the next rung, if there is one."""
        rung = next(self._tries, None)
        if rung is None:
            return False
        before = None if self.best is None else self.best.answer
        prompt = self._gate.again(self._prompt, before)
        turns = (*self.call.turns[:-1], replace(self.call.turns[-1], text=prompt))
        self.call = replace(self.call, turns=turns, options=rung.options)
        self._rung = rung.name
        return True

    def result(self) -> Checked:
        """The best answer; raises where none may pass."""
        tried = tuple(self._tried) if len(self._tried) > 1 else ()
        try:
            if self.best is None:
                assert self._empty is not None  # nosec B101  # one of both came
                raise self._empty
            settled = self._gate.settle(self.best.answer)
        except ServerError as error:
            error.tried = tried
            raise
        answer = settled.answer
        if tried:
            spent = reduce(lambda before, usage: usage.after(before), self._spent)
            answer = answer.model_copy(update={"usage": spent})
        return Checked(answer, settled.all, tried)
