"""The blocking step of a call: its backend started and its pictures ready to send."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from internvl_modal.flows.discovery import Ready
from internvl_modal.flows.turns import prepared_turns
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.protocol.turns import Turn
from internvl_modal.schema.inputs import Message
from internvl_modal.schema.options import DescribeOptions


class Begun(NamedTuple):
    """A backend that runs, when to give up and, where all is known of it, what is to be sent."""

    endpoint: Endpoint
    deadline: float
    """Monotonic seconds."""
    ready: Ready | None = None
    """None: the server must be asked what it is before its pictures can be prepared."""
    turns: tuple[Turn, ...] = ()
    prepared: float = 0.0
    """Seconds that the pictures took."""


def prepare(
    begun: Begun, ready: Ready, messages: Sequence[Message], options: DescribeOptions, label: Any
) -> Begun:
    """``begun`` with the pictures as the server that is ``ready`` should have them; blocks."""
    since = time.monotonic()
    turns = prepared_turns(messages, options, ready.capabilities, label, begun.deadline)
    return begun._replace(ready=ready, turns=turns, prepared=time.monotonic() - since)
