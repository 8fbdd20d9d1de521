"""What ``POST /`` answers: one document, or the text piece by piece and then that document."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import StreamingResponse

from internvl_modal.client.streams import AsyncStream
from internvl_modal.gateway.asking import Model
from internvl_modal.gateway.event_stream import event, event_stream
from internvl_modal.gateway.metrics import Metrics
from internvl_modal.schema.results import Description, ImageInfo, Seen, Timings, Usage


# ``description`` first: it is what a shell script with jq is after.
class Answer(BaseModel):
    """What ``POST /`` answers."""

    description: str
    model: str
    finish_reason: str
    usage: Usage
    warnings: tuple[str, ...] = ()
    seen: Seen = Field(description="Whether the token count proves that the picture was read.")
    images: tuple[ImageInfo, ...] = Field(description="What the model was shown.")
    timings: Timings = Field(description="Seconds, as the gateway measured them.")
    cost_usd: tuple[float, float] | None = Field(
        None, description="USD on a busy deployment, at best and at worst, where known."
    )


class Answers:
    """Answers to one request, counted."""

    def __init__(self, request: Request, model: Model, metrics: Metrics) -> None:
        self._request, self._model, self._metrics = request, model, metrics

    def of(self, found: Description) -> Answer:
        """The whole answer."""
        self._metrics.tokens.inc(found.usage.completion_tokens)
        return Answer(
            description=found.text,
            model=found.model,
            finish_reason=found.finish_reason,
            usage=found.usage,
            warnings=found.warnings,
            seen=found.seen,
            images=found.images,
            timings=found.timings,
            cost_usd=self._model.cost(sum(image.tiles for image in found.images)),
        )

    async def streamed(self, answer: AsyncStream) -> StreamingResponse:
        """Server-sent events, once the first piece is there: until then an error has a status."""
        pieces = aiter(answer)
        first = await anext(pieces, "")
        return event_stream(self._request, self._events(first, pieces, answer))

    async def _events(
        self, first: str, pieces: AsyncGenerator[str, None], answer: AsyncStream
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            yield event({"text": first})
            async for piece in pieces:
                yield event({"text": piece})
            yield event(self.of(answer.description).model_dump(mode="json"))
