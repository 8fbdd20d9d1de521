"""What ends a batch, and what is only a picture's failure.

Two mistakes are costly: to record ten thousand failures because a server was restarted, and to end
a night's run because of one picture. So what may be the server's fault is withheld until an answer
to any picture shows that the server is there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

from internvl_modal.batch.faults import (
    is_absence,
    is_answer,
    is_fatal,
    is_forbidden,
    is_unanswered,
    local_trouble,
)
from internvl_modal.batch.options import BatchSettings
from internvl_modal.batch.outcome import Outcome
from internvl_modal.errors import AuthenticationError, ServerError

GONE = 10
"""Pictures that the server left unanswered, with all their attempts and no answer between them,
before the batch gives up; as many in a row that it forbids."""

Numbered: TypeAlias = "tuple[int, Outcome]"
"""The input's number, and what became of it."""


class Judge:
    """Passes outcomes on, unless one ends the batch: then the next run asks again.

    That the server was not there says nothing of a picture: it is withheld until an answer says
    that it is there. So is a 403 until another picture is answered: it may be said of the key.
    """

    def __init__(
        self,
        settings: BatchSettings,
        remembers: bool,
        pass_on: Callable[[Numbered], None],
        end: Callable[[Exception], None],
    ) -> None:
        self._settings, self._remembers = settings, remembers
        self._pass_on, self._end = pass_on, end
        self._withheld: list[Numbered] = []
        self._unanswered = self._forbidden = 0
        self._answered = False

    def __call__(self, index: int, outcome: Outcome, *, full: bool) -> None:
        """Judge one; ``full``: all that may be under way is, so that nothing further comes."""
        error = outcome.error
        ending = self._ending(error)
        if ending is not None:
            self._end(ending)
            return
        if is_forbidden(error):
            self._forbid(index, outcome, error)
        else:
            self._take(index, outcome, error)
        # Everything that may be under way waits for this: nobody else can bring the answer.
        if full and self._withheld:
            self._give_up_waiting()

    def release(self) -> None:
        """Pass on what was withheld, though no answer came."""
        for each in self._withheld:
            self._pass_on(each)
        self._withheld.clear()

    def finish(self) -> None:
        """There are no more pictures."""
        forbidden = self._first_forbidden()
        if forbidden is not None:
            self._end(forbidden)
        else:
            self.release()

    def _ending(self, error: Exception | None) -> Exception | None:
        """What ends the batch at once."""
        if error is None:
            return None
        if (trouble := local_trouble(error)) is not None:
            trouble.__cause__ = error
            return trouble
        fatal = is_fatal(error) or self._settings.on_error == "raise"
        return error if fatal else None

    def _forbid(self, index: int, outcome: Outcome, error: ServerError) -> None:
        """Of a picture, where others are answered; of the key, where it goes on and on."""
        self._forbidden += 1
        if self._answered and not isinstance(error, AuthenticationError):
            self._pass_on((index, outcome))  # the server says that the picture is meant
            return
        self._withheld.append((index, outcome))
        if isinstance(error, AuthenticationError) and self._forbidden >= GONE:
            self._end(error)

    def _take(self, index: int, outcome: Outcome, error: Exception | None) -> None:
        """Take what is no 403: an answer frees what was withheld, an absence is withheld."""
        if is_answer(error) and outcome.attempts:  # what was known says nothing of the server
            self._unanswered = self._forbidden = 0
            self._answered = True
            self.release()
        if is_absence(error):
            self._withheld.append((index, outcome))
        else:
            self._pass_on((index, outcome))
        if is_unanswered(error):
            self._unanswered += 1
            if self._unanswered >= GONE:
                self._end(_gone(error) if self._remembers else error)

    def _give_up_waiting(self) -> None:
        """The window is full of what is withheld: decide, or the batch would stand still."""
        forbidden = self._first_forbidden()
        if forbidden is not None and self._forbidden >= GONE:
            self._end(forbidden)
        elif self._settings.ordered:
            self.release()

    def _first_forbidden(self) -> ServerError | None:
        """The 403 that ends the batch, where nothing else was answered."""
        if self._answered:
            return None
        errors = (outcome.error for _, outcome in self._withheld)
        return next(filter(is_forbidden, errors), None)


def _gone(error: ServerError) -> ServerError:
    """The error that ends a batch whose server gives no answers; that of the picture stays."""
    ending = copy.copy(error)
    ending.__cause__ = error.__cause__
    again = "the same call goes on; with retry_errors=True it asks again what is recorded as failed"
    ending.hint = f"{error.hint}; {again}" if error.hint else again
    ending.args = (f"{error.message} ({ending.hint})",)
    return ending
