"""Answers that are objects: asked with their schema, read tolerantly, sent back where wrong.

Below ``core``, which has one for each client: what a server has refused is remembered there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from internvl_modal.errors import EngineError, RequestRejectedError
from internvl_modal.flows.steps import Blocking, Flow, sent
from internvl_modal.protocol import structured_output
from internvl_modal.protocol.answer_warnings import cut_off
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.http import Json
from internvl_modal.schema.results import Description, Usage
from internvl_modal.transport.exchange import Exchanged

T = TypeVar("T")

_REFUSALS = (400, 422, 501)
"""Statuses of a request that holds something which the server does not know."""
_SCHEMA_WORDS = re.compile(
    r"response.?format|json.?schema|structured.?output|grammar|guided|requested parameters", re.I
)
"""In the words of other statuses; the last is OpenRouter's 404 where no provider takes one."""


@dataclass(frozen=True)
class Wanted(Generic[T]):
    """An object that an answer shall hold, and how often a wrong one is sent back."""

    document: Json
    """Its JSON schema."""
    read: Callable[[Json], T]
    """Raises ValueError with the reason where an object is not wanted."""
    repairs: int = 2


@dataclass(frozen=True)
class Typed(Generic[T]):
    """What was read from the last answer, that answer with the tokens of all, and what is wrong."""

    found: T | None
    answer: Description
    why: str = ""


class TypedAnswers:
    """Asks one endpoint for objects, and remembers which schemas it does not take."""

    def __init__(self) -> None:
        self._refused: set[str] = set()
        """JSON schemas that the server has refused; "" stands for all of them."""

    def ask(self, call: ChatCall, deadline: float, wanted: Wanted[T]) -> Flow[Typed[T]]:
        """Ask until the answer is what is ``wanted``, or no repair is left or would help."""
        spent = Usage()
        for repair in range(wanted.repairs + 1):
            answer = yield from self._held(call, deadline, wanted.document)
            spent = answer.usage.after(spent)
            answer = answer.model_copy(update={"usage": spent})
            try:
                # In a thread, where there is an event loop: a schema can ask for much.
                read = partial(structured_output.read_answer, answer.text, wanted.read)
                return Typed((yield Blocking(read)), answer)
            except ValueError as error:
                why = str(error)
            if answer.finish_reason == "length":  # and would be again
                return Typed(None, answer, cut_off(answer.usage, call))
            if repair < wanted.repairs:
                call = structured_output.repaired(call, answer.text, why)
        return Typed(None, answer, why)

    def _held(self, call: ChatCall, deadline: float, schema: Json) -> Flow[Description]:
        """Ask with the schema where the server may take it; again without it if it does not."""
        known, key = call.capabilities.json_schema, json.dumps(schema, sort_keys=True)
        done: Exchanged[Description]
        if known is not False and not self._refused & {"", key}:
            try:
                return (yield from sent(call, deadline, schema)).value
            except (RequestRejectedError, EngineError) as error:
                if error.status not in _REFUSALS and not _SCHEMA_WORDS.search(error.message):
                    raise
            done = yield from sent(call, deadline)
            # A server that is known to take schemas has refused this one; one of which nothing is
            # known does not take any. Both are remembered, so that it is asked in vain only once.
            self._refused.add(key if known else "")  # it was the schema, since this is answered
        else:
            done = yield from sent(call, deadline)
        return done.value
