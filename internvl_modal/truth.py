"""Whether an answer is about the pictures that were sent, judged from its token counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from internvl_modal.errors import ImageNotSeenError
from internvl_modal.prompts import CONTROL_TOKENS, Turn, neutralise
from internvl_modal.schema import DETAIL_TILES, Seen, Usage

if TYPE_CHECKING:
    from internvl_modal.backends.base import Capabilities
    from internvl_modal.wire import ChatCall

TEMPLATE_TOKENS = 200
"""More than any chat template adds: InternVL 2.5's system prompt and turns need about 70."""

LOOP_WINDOW = 300


def check_seen(
    turns: Sequence[Turn],
    capabilities: Capabilities,
    usage: Usage | None,
    *,
    request_id: str | None = None,
) -> Seen:
    """Raise ImageNotSeenError, or say whether the prompt's tokens prove every picture.

    A server that could not load a picture sees one tile in its place (LMDeploy: a black square),
    or none. It is disproved when the count is below what the tiles alone need, and proved when
    the count is more than the text could explain with any one picture lost. Text is never more
    tokens than bytes, since both of InternVL's tokenizers fall back to bytes.
    """
    tokens = [image.info.tokens for turn in turns for image in turn.images]
    if not tokens or capabilities.tokens_per_tile is None or usage is None:
        return "unverifiable"
    expected = sum(tokens)
    if 0 < usage.prompt_tokens < expected:
        raise _not_seen(expected, usage.prompt_tokens, request_id)
    smallest_loss = min(tokens) - capabilities.tokens_per_tile
    if smallest_loss == 0:
        return "unverifiable"
    text = sum(len(neutralise(turn.text).encode("utf-8", "replace")) for turn in turns)
    explained = expected - smallest_loss + text + TEMPLATE_TOKENS + 16 * len(tokens)
    return "confirmed" if usage.prompt_tokens > explained else "unverifiable"


def proven(proof: Mapping[str, object]) -> tuple[Seen, tuple[str, ...]]:
    """``seen`` and the warnings in an answer of our gateway, which has checked it."""
    warnings = proof.get("warnings")
    told = warnings if isinstance(warnings, list) else []
    seen: Seen = "confirmed" if proof.get("seen") == "confirmed" else "unverifiable"
    return seen, tuple(item for item in told if isinstance(item, str))


def _not_seen(expected: int, actual: int, request_id: str | None) -> ImageNotSeenError:
    error = ImageNotSeenError(
        f"the server did not see the picture: its prompt had {actual} tokens, "
        f"and the tiles alone need {expected}",
        hint="the server could not load it or shrank it; see the server's log",
        status=200,
        request_id=request_id,
    )
    error.expected, error.actual = expected, actual
    return error


def answer_warnings(
    text: str, finish_reason: object, usage: Usage, call: ChatCall
) -> tuple[str, ...]:
    """What a reader of the description should know before trusting it."""
    found: list[str] = []
    if call.endpoint.notice:
        found.append(call.endpoint.notice)
    if any(CONTROL_TOKENS.search(turn.text) for turn in call.turns):
        found.append("the prompt held control tokens; they were sent as plain text")
    if detail_unused(call):
        limit = call.capabilities.max_tiles
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
    short = f" (of {wanted} asked for: the context is full)" if 0 < got < wanted else ""
    return f"the answer was cut at {got or wanted} tokens{short}"


def detail_unused(call: ChatCall) -> bool:
    """Whether ``detail`` asked for something else than the server's own limit of tiles."""
    detail, limit = call.options.detail, call.capabilities.max_tiles
    asked = DETAIL_TILES.get(detail) if isinstance(detail, str) else detail
    if limit is None or asked == DETAIL_TILES["medium"] or not call.images:
        return False
    if call.capabilities.dialect == "llamacpp":  # there a picture is shrunk to fewer tiles
        return asked is not None and asked > limit
    return asked != limit


def repetition(text: str) -> str:
    """The unit that the end of ``text`` repeats, at least four times and 40 characters, or ''."""
    tail = text.rstrip()[-LOOP_WINDOW:]
    for period in range(1, len(tail) // 4 + 1):
        length = max(4 * period, 40)
        end = tail[-length:]
        if len(end) == length and end[period:] == end[:-period] and end[:period].strip(" .-_=*#"):
            return end[-period:].strip()[:60]
    return ""
