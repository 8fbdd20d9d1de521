"""What an answer's reader should know: it was cut, it repeats itself, an option had no effect.

A warning is for what cannot be an error: the answer is there and paid for, and only its reader can
say whether it will do. What makes an answer worthless is raised in ``completion`` instead.
"""

from __future__ import annotations

from functools import lru_cache

from internvl_modal.protocol.call import ChatCall
from internvl_modal.schema.options import DETAIL_TILES
from internvl_modal.schema.results import FinishReason, Usage

LOOP_WINDOW = 300
"""Characters at the end of an answer that are looked at: a loop goes on until ``max_tokens`` cuts
it, so its end is a loop as well.
"""


def answer_warnings(
    text: str, finish_reason: FinishReason | None, usage: Usage, call: ChatCall
) -> tuple[str, ...]:
    """What a reader of the description should know before trusting it."""
    found: list[str] = []
    if call.endpoint.notice:
        found.append(call.endpoint.notice)
    found += [warning for image in call.images for warning in image.warnings]
    if any(turn.plain != turn.text for turn in call.turns):
        found.append("the prompt held control tokens; they were sent as plain text")
    if detail_unused(call):
        limit = max(image.info.max_tiles for image in call.images)
        unused = f"detail={call.options.detail!r} had no effect"
        found.append(f"{unused}: this server sets its own limit, taken to be {limit} tiles")
    if finish_reason == "length":
        found.append(cut_off(usage, call))
    if loop := repetition(text):
        found.append(f"the answer repeats itself: {loop!r}")
    return tuple(found)


def cut_off(usage: Usage, call: ChatCall) -> str:
    """Where an answer with the finish reason "length" ended, and why."""
    wanted, got = call.options.max_tokens, usage.completion_tokens
    full = wanted is not None and 0 < got < wanted
    # LMDeploy cuts ``max_tokens`` to what is left of the context, without a word: fewer tokens than
    # asked for together with "length" is the only sign of it.
    short = f" (of {wanted} asked for: the context is full)" if full else ""
    told = got or wanted
    return f"the answer was cut at {told} tokens{short}" if told else "the answer was cut"


def detail_unused(call: ChatCall) -> bool:
    """Whether ``detail`` asked for more than the server's own limit; fewer tiles are always had."""
    detail = call.options.detail
    asked = DETAIL_TILES.get(detail) if isinstance(detail, str) else detail
    if asked is None or asked == DETAIL_TILES["medium"] or not call.images:
        return False
    return any(image.info.max_tiles < asked for image in call.images)


@lru_cache(maxsize=256)  # asked of an answer of a batch twice: for its warnings and its flags
def repetition(text: str) -> str:
    """The unit that the end of ``text`` repeats, at least four times and 40 characters, or ''.

    The unit must be more than rules and dashes: a Markdown table ends in forty dashes and is no
    loop.

    >>> repetition("It shows a cat. " + "a cat and " * 12)
    'a cat and'
    >>> repetition("| a | b |" + "-" * 60)
    ''
    """
    tail = text.rstrip()[-LOOP_WINDOW:]
    if not tail:
        return ""
    at = len(tail) - 1
    # The shortest period wins: "na na" repeats with every multiple of three as well.
    while (at := tail.rfind(tail[-1], 0, at)) >= 0:
        period = len(tail) - 1 - at
        if 4 * period > len(tail):
            break
        length = max(4 * period, 40)
        end = tail[-length:]
        if len(end) == length and end[period:] == end[:-period] and end[:period].strip(" .-_=*#"):
            return end[-period:].strip()[:60]
    return ""
