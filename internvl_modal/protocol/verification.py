"""Whether an answer is about the pictures that were sent, judged from its token counts.

The most harmful fault of a vision server is silent: the picture cannot be loaded, and the model
describes something all the same. The prompt's token count is the only witness that every server
calls, and tiles are so many tokens that it can be heard.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvl_modal.errors import ImageNotSeenError
from internvl_modal.protocol.call import ChatCall
from internvl_modal.schema.results import Seen, Usage

TEMPLATE_TOKENS = 200
"""More than any chat template adds: InternVL 2.5's system prompt and turns need about 70."""


@dataclass(frozen=True)
class Sight:
    """Whether the pictures were seen, and what a reader should know of it.

    ``warnings`` of a sight are those that only the count can tell.
    """

    seen: Seen
    warnings: tuple[str, ...] = ()


UNKNOWN = Sight("unverifiable")


def check_seen(
    call: ChatCall, usage: Usage | None, *, request_id: str | None = None, text: str = ""
) -> Sight:
    """Raise ImageNotSeenError, or say whether the prompt's tokens prove every picture.

    A server that could not load a picture sees one tile in its place (LMDeploy: a black square),
    or none. It is disproved when the count is below what the tiles alone need, and proved when
    the count is more than the text could explain with any one picture lost. Text is never more
    tokens than bytes, since both of InternVL's tokenizers fall back to bytes. Where the tiles
    themselves are a guess, only a count with no room for every picture disproves.

    16 tokens a picture are for its label and marks.
    """
    tokens = [image.info.tokens for image in call.images]
    one = call.capabilities.tokens_per_tile
    if not tokens or one is None or usage is None:
        return UNKNOWN
    expected, actual = sum(tokens), usage.prompt_tokens
    # A count of 0 is a server that does not count.
    if 0 < actual < expected:
        fewest = call.family.fewest_tokens if call.family is not None else one
        if not call.capabilities.assumed or actual < len(tokens) * min(one, fewest):
            raise _not_seen(expected, actual, request_id, text)
        return Sight("unverifiable", (_fewer(call, expected, actual),))
    # What the count would lack if the smallest picture had been replaced by a single tile. A
    # picture of one tile leaves no trace when it is replaced.
    smallest_loss = min(tokens) - one
    if smallest_loss == 0:
        return UNKNOWN
    words = sum(len(turn.plain.encode("utf-8", "replace")) for turn in call.turns)
    explained = expected - smallest_loss + words + TEMPLATE_TOKENS + 16 * len(tokens)
    return Sight("confirmed") if actual > explained else UNKNOWN


def _fewer(call: ChatCall, expected: int, actual: int) -> str:
    # What was assumed is told, with the call that corrects it: only the user can know better.
    known = call.capabilities
    return (
        f"the prompt had {actual} tokens where the tiles alone were expected to need {expected}: "
        f"that this server cuts a picture into {known.max_tiles} tiles of "
        f"{known.tokens_per_tile} tokens at most is a guess; where you know better, say "
        f"Client(capabilities=Capabilities({known.dialect!r}, tokens_per_tile=..., max_tiles=...))"
    )


def _not_seen(expected: int, actual: int, request_id: str | None, text: str) -> ImageNotSeenError:
    return ImageNotSeenError(
        f"the server did not see the picture: its prompt had {actual} tokens, "
        f"and the tiles alone need {expected}",
        hint="the server could not load it or shrank it; see the server's log",
        expected=expected,
        actual=actual,
        status=200,
        request_id=request_id,
        text=text,
    )
