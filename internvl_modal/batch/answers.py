"""From one prepared picture to its answers: the one place where an answer becomes an outcome.

A picture is prepared once, however many prompts it has; they are asked one after the other, so
that an engine that keeps the beginning of a prompt has the picture at hand for the next.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

from internvl_modal.batch.faults import is_fatal, is_unanswered
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sources.keys import Item
from internvl_modal.errors import AnswerFlaggedError, EmptyAnswerError, ServerError
from internvl_modal.flows.checked import checked
from internvl_modal.flows.core import Core
from internvl_modal.flows.steps import Flow, described
from internvl_modal.flows.turns import one_turn
from internvl_modal.flows.typed import Wanted
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.structured_output import first_prompt, invalid
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.results import Description, Usage

_ENDS = 1024
"""Bytes at either end of a picture by which it is told from others."""


class Answer(NamedTuple):
    """What became of one prompt: a description, with what was read from it, or an error."""

    name: str
    description: Description | None = None
    value: object = None
    error: Exception | None = None
    flags: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


def ask(core: Core, item: Item, job: Job, options: DescribeOptions) -> Flow[list[Answer]]:
    """The answer to each prompt of an input, in their order.

    A single one raises its error. Of several a refusal is one's own; where the server does not
    answer, the rest is not asked, and the list ends there.
    """
    begun = time.monotonic()
    # What cannot be read has no texts, and fails before they would be sent.
    texts = [_question(text, job.wanted) for text in item.texts or job.prompts.plain]
    call, deadline, prepared = yield from core.asked(one_turn(item.source, texts[0]), options)
    asking = _Asking(core, job, call, deadline, prepared, begun)
    if len(texts) == 1:
        return [(yield from asking.answer("", texts[0]))]
    found = []
    for name, text in zip(job.prompts.names, texts, strict=True):
        try:
            found.append((yield from asking.answer(name, text)))
        except ServerError as error:
            if not found and options is not job.checked:  # the batch's own wish may be at fault
                raise
            found.append(Answer(name, error=error))
            if is_unanswered(error) or is_fatal(error):
                break
        asking.renew()  # each has the time of a call
    return found


def _question(text: str, wanted: Wanted[Any] | None) -> str:
    return text if wanted is None else first_prompt(text, wanted.document)


class _Asking:
    """One input whose pictures are prepared, and what is asked about them."""

    def __init__(
        self, core: Core, job: Job, call: ChatCall, deadline: float, prepared: float, begun: float
    ) -> None:
        self._core, self._job, self._call = core, job, call
        self._deadline, self._prepared, self._begun = deadline, prepared, begun
        self._picture: bytes | None = None

    def answer(self, name: str, text: str) -> Flow[Answer]:
        """Ask ``text`` until it is answered as it should be; raises ServerError."""
        job, call = self._job, self._call
        *before, last = call.turns
        if text != last.text:
            call = replace(call, turns=(*before, replace(last, text=text)))
        if job.wanted is not None:
            typed = yield from self._core.typed(call, self._deadline, job.wanted)
            if typed.found is None:
                raise invalid("the schema", typed.why, typed.answer)
            return Answer(name, typed.answer, typed.found)
        if job.gate.idle:
            return Answer(name, (yield from self._described(call)))
        passed = yield from checked(call, job.gate, self._described, self.picture)
        return Answer(name, passed.answer, flags=passed.flags, tried=passed.tried)

    def renew(self) -> None:
        """Give the next question the time of a call."""
        self._begun, self._prepared = time.monotonic(), 0.0
        self._deadline = self._later()

    @property
    def picture(self) -> bytes:
        """A digest of what is sent: the same for the same picture under another key.

        Of its length and its ends, in which packed pictures differ if they do anywhere: of all of
        it, it would take a sixth of the time that a small picture takes.
        """
        if self._picture is None:
            digest = blake2b(digest_size=8)
            for payload in (image.payload for image in self._call.images):
                digest.update(b"%d" % len(payload) + payload[:_ENDS] + payload[-_ENDS:])
            self._picture = digest.digest()
        return self._picture

    def _described(self, call: ChatCall) -> Flow[Description]:
        try:
            return (yield from described(call, self._deadline, self._begun, self._prepared))
        finally:  # asked again it has the time of a call
            self._deadline = self._later()

    def _later(self) -> float:
        return time.monotonic() + (self._job.checked.timeout or self._core.timeout)


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
        _flags(found, error, job),
        error.tried
        if isinstance(error, ServerError)
        else tuple(_of(each.name, words) for each in found for words in each.tried),
    )


def _flags(found: Sequence[Answer], error: Exception | None, job: Job) -> tuple[str, ...]:
    """What the answers are flagged with, each by its prompt's name where there are several."""
    if isinstance(error, AnswerFlaggedError):
        return error.flags
    if isinstance(error, EmptyAnswerError) and not job.gate.idle:
        return ("empty",)
    return tuple(_of(each.name, flag) for each in found for flag in each.flags)


def _of(name: str, words: str) -> str:
    return f"{name}: {words}" if name else words


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
