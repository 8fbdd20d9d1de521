"""Server-sent events, in which an error that comes after the status is one more event."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import StreamingResponse

from internvl_modal.gateway.errors import TOLD, Failure


def event(document: object) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(document)}\n\n".encode()


def event_stream(request: Request, events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    """``events`` as they come, kept back by no proxy."""
    # nginx collects a whole answer before it passes it on unless it is told not to.
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    told = _with_failures(request, events)
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


async def _with_failures(
    request: Request, events: AsyncGenerator[bytes, None]
) -> AsyncIterator[bytes]:
    async with aclosing(events):
        try:
            async for each in events:
                yield each
        except Exception as error:
            failure = Failure.of(error, request)
            # For the metrics, as the status has been sent.
            request.state.failed = failure.status
            yield event(failure.document(request))
            if not isinstance(error, TOLD):
                raise
