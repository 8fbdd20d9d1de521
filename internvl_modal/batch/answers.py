"""From one prepared picture to its answers: the one place where an answer becomes an outcome.

A picture is prepared once, however many prompts it has; they are asked one after the other, so
that an engine that keeps the beginning of a prompt has the picture at hand for the next.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from internvl_modal.batch.faults import is_fatal, is_unanswered
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sources.keys import Item
from internvl_modal.errors import ServerError
from internvl_modal.flows.core import Core
from internvl_modal.flows.steps import Flow, chat_step, timed
from internvl_modal.flows.turns import one_turn
from internvl_modal.flows.typed import Wanted
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.structured_output import first_prompt, invalid
from internvl_modal.schema.options import DescribeOptions, Options
from internvl_modal.schema.results import Description, Usage
from internvl_modal.transport.exchange import Exchanged


class Answer(NamedTuple):
    """What became of one prompt: a description, with what was read from it, or an error."""

    name: str
    description: Description | None = None
    value: object = None
    error: Exception | None = None


def ask(core: Core, item: Item, job: Job, options: Options | DescribeOptions) -> Flow[list[Answer]]:
    """The answer to each prompt of an input, in their order.

    A single one raises its error. Of several a refusal is one's own; where the server does not
    answer, the rest is not asked, and the list ends there.
    """
    begun = time.monotonic()
    # What cannot be read has no texts, and fails before they would be sent.
    texts = [_question(text, job.wanted) for text in item.texts or job.prompts.plain]
    call, deadline, prepared = yield from core.asked(one_turn(item.source, texts[0]), options)
    if len(texts) == 1:
        return [(yield from _answer(core, "", call, deadline, job.wanted, begun, prepared))]
    found = []
    for name, text in zip(job.prompts.names, texts, strict=True):
        try:
            asked = _with_text(call, text)
            found.append(
                (yield from _answer(core, name, asked, deadline, job.wanted, begun, prepared))
            )
        except ServerError as error:
            found.append(Answer(name, error=error))
            if is_unanswered(error) or is_fatal(error):
                break
        begun, prepared = time.monotonic(), 0.0
        deadline = begun + (job.checked.timeout or core.timeout)  # each has the time of a call
    return found


def _question(text: str, wanted: Wanted[Any] | None) -> str:
    return text if wanted is None else first_prompt(text, wanted.document)


def _with_text(call: ChatCall, text: str) -> ChatCall:
    """The same pictures with another question."""
    *before, last = call.turns
    return dataclasses.replace(call, turns=(*before, dataclasses.replace(last, text=text)))


def _answer(
    core: Core,
    name: str,
    call: ChatCall,
    deadline: float,
    wanted: Wanted[Any] | None,
    begun: float,
    prepared: float,
) -> Flow[Answer]:
    """Ask ``call`` until it is answered as it should be; raises ServerError."""
    if wanted is None:
        sent: Exchanged[Description] = yield chat_step(call, deadline)
        return Answer(name, timed(sent, begun, prepared))
    typed = yield from core.typed(call, deadline, wanted)
    if typed.found is None:
        raise invalid("the schema", typed.why, typed.answer)
    return Answer(name, typed.answer, typed.found)


def outcome_of(
    item: Item,
    job: Job,
    found: Sequence[Answer],
    error: Exception | None,
    attempts: int,
    seconds: float,
) -> Outcome:
    """What became of an input: a failure where one of its prompts has failed.

    The books need one outcome for each input. That the server did not answer counts before what
    it refused: it says nothing of the picture.
    """
    errors = [each.error for each in found if each.error is not None]
    unanswered = [each for each in errors if is_unanswered(each) or is_fatal(each)]
    error = error or next(iter(unanswered + errors), None)
    described = {each.name: each.description for each in found if each.description is not None}
    ok = error is None
    return Outcome(
        item.key,
        item.source,
        _together(described) if ok else None,
        error,
        attempts,
        seconds,
        found[0].value if ok else None,
        described if job.prompts.names else {},
        job.prompts.named(item.texts),
    )


def _together(found: Mapping[str, Description]) -> Description:
    """Several answers about one picture as one: all texts, all tokens, all warnings."""
    first, *others = found.values()
    if not others:
        return first
    usage = Usage()
    for each in found.values():
        usage = each.usage.after(usage)
    cut = any(each.finish_reason == "length" for each in found.values())
    return first.model_copy(
        update={
            "text": "\n\n".join(each.text for each in found.values()),
            "usage": usage,
            "finish_reason": "length" if cut else "stop",
            "warnings": tuple(
                f"{name}: {words}" for name, each in found.items() for words in each.warnings
            ),
        }
    )
