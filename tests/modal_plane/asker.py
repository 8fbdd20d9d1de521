"""Who calls: each container does so through a socket of its own."""

from __future__ import annotations

from contextvars import ContextVar

ASKER: ContextVar[str] = ContextVar("asker", default="")
"""The container whose call is being answered; empty for clients."""
