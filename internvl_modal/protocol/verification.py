"""Whether an answer is about the pictures that were sent, judged from its token counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from internvl_modal.errors import ImageNotSeenError
from internvl_modal.protocol.turns import Turn, neutralise
from internvl_modal.schema.results import Seen, Usage

if TYPE_CHECKING:
    from internvl_modal.protocol.endpoint import Capabilities

TEMPLATE_TOKENS = 200
"""More than any chat template adds: InternVL 2.5's system prompt and turns need about 70."""


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
