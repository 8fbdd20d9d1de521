"""Calls that the gateway makes for its callers: what they do not set is the server's own.

Apart from ``core`` because nobody but the gateway uses it: a caller of OpenAI's API who sets no
temperature expects the server's default, while our own calls set greedy answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from internvl_modal.flows.core import Core
from internvl_modal.flows.spans import ChatSpan
from internvl_modal.flows.steps import Flow, events_step, exchange_of
from internvl_modal.flows.typed import Wanted
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.chat_request import chat_request
from internvl_modal.protocol.completion import decode_completion, first_choice
from internvl_modal.protocol.completion_stream import decode_events
from internvl_modal.protocol.dialects.registry import dialect_of
from internvl_modal.protocol.http import HttpResponse, Json, json_of
from internvl_modal.protocol.structured_output import first_prompt, invalid
from internvl_modal.schema.inputs import Message
from internvl_modal.schema.options import Options
from internvl_modal.schema.results import Description
from internvl_modal.transport.exchange import Exchanged


@dataclass(frozen=True)
class Relayed:
    """One answer, and what the server said of its tokens' probabilities.

    ``logprobs`` are passed through unread: their shape is the caller's business and the engine's.
    """

    description: Description
    logprobs: object = None


def relay(
    core: Core, messages: Sequence[Message], options: Options, fields: Mapping[str, object]
) -> Flow[Relayed]:
    """Answer the last of ``messages``; ``fields`` are sent as they are."""
    begun = time.monotonic()
    call, deadline, prepared = yield from core.asked(messages, options, relayed=fields)
    if dialect_of(call.capabilities).as_stream:
        step = events_step(call, deadline, partial(_decode_events, call=call))
    else:
        decode = partial(_decode, call=call)
        step = exchange_of(call, chat_request(call), decode, deadline)
    with ChatSpan(call, begun, prepared) as span:
        sent: Exchanged[Relayed] = yield span.carried(step)
        span.done("wait")
        span.answered(sent.value.description)
    return sent.value


def relay_object(
    core: Core,
    messages: Sequence[Message],
    options: Options,
    fields: Mapping[str, object],
    wanted: Wanted[Json],
) -> Flow[Relayed]:
    """Answer with a JSON object, as ``Client.extract`` has it.

    One that was cut is told as it is, since callers read ``finish_reason``; raises
    OutputInvalidError where it does not fit after all repairs.

    ``fields`` may hold what an engine takes beyond our options; the dialect has renamed them.
    """
    # The schema goes into the question itself: engines that cannot be held to one still read it.
    question = messages[-1].model_copy(
        update={"text": first_prompt(messages[-1].text, wanted.document)}
    )
    turns = (*messages[:-1], question)
    call, deadline, _ = yield from core.asked(turns, options, relayed=fields)
    typed = yield from core.typed(call, deadline, wanted)
    if typed.found is not None:
        text = json.dumps(typed.found, ensure_ascii=False)
        return Relayed(typed.answer.model_copy(update={"text": text}))
    if typed.answer.finish_reason == "length":
        return Relayed(typed.answer)
    raise invalid("the schema", typed.why, typed.answer)


def _decode_events(response: HttpResponse, call: ChatCall) -> Relayed:
    found, logprobs = decode_events(response, call)
    return Relayed(found, {"content": logprobs, "refusal": None} if logprobs else None)


def _decode(response: HttpResponse, call: ChatCall) -> Relayed:
    """A completion is read twice: the description drops the probabilities, which few ask for."""
    found = decode_completion(response, call)
    body = json_of(response.body)
    choice = first_choice(body) if isinstance(body, dict) else None
    return Relayed(found, choice and choice.get("logprobs"))
