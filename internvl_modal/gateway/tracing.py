"""A caller's trace goes on in the gateway: its calls of the model are part of that trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["callers_trace"]


@contextmanager
def callers_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Spans that begin within are children of the one that ``headers`` name (traceparent).

    Nothing is done in a process that does not trace, and where an instrumentation of the web
    server has made a span of the request already.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or trace.get_current_span().get_span_context().is_valid:
        yield
        return
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)
