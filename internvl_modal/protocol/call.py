"""What is asked of a model, below everything that sends it or reads the answer.

Below the request and the answer, so that both can import it: a call is written into bytes by
``chat_request`` and judged by ``verification`` with the same numbers in hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from internvl_modal.protocol.endpoint import Capabilities, Endpoint
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.options import DescribeOptions

if TYPE_CHECKING:
    from internvl_modal.models.families import Family
    from internvl_modal.schema.results import PreparedImage


@dataclass(frozen=True)
class ChatCall:
    """What is asked, kept to check the answer against it.

    Immutable; a repair of ``extract`` makes another with two turns more.
    """

    endpoint: Endpoint
    capabilities: Capabilities
    model: str
    # With the pictures' bytes; a call is held only until its answer has come.
    turns: tuple[Turn, ...]
    options: DescribeOptions
    family: Family | None = None
    """Of the model, where its name tells."""
    relayed: Mapping[str, object] | None = None
    """Fields for the server as they are, of a call that the gateway makes for somebody else: then
    no system message is added, and an answer about no picture may be empty."""

    @cached_property
    def images(self) -> tuple[PreparedImage, ...]:
        """Every picture of every turn, in order."""
        return tuple(image for turn in self.turns for image in turn.images)
