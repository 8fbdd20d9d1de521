"""What a call answers: descriptions, usage, estimates.

All of it can be written as JSON and read again: batches keep it in lines, the gateway sends it, the
command line prints it. Nothing in it refers to a client or holds pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from textwrap import shorten
from typing import Literal, TypeAlias

from pydantic import (
    Field,
)

from internvl_modal._utils.notebook import card, table
from internvl_modal.schema.validation import FrozenModel


class ImageInfo(FrozenModel):
    """What was done to one picture and what the server is expected to see of it."""

    source: str = Field(description="Short name of the source, for messages.")
    width: int = Field(description="Pixels, as stored in the file.")
    height: int = Field(description="Pixels, as stored in the file.")
    format: str = Field(description="Format of the source, such as 'JPEG' or 'array'.")
    orientation: int = Field(1, description="EXIF orientation 1-8 that was applied.")
    # Of an animation or a multi-page TIFF only the first is seen; whoever reads the number can
    # tell.
    frames: int = Field(1, description="Frames or pages in the file; the first is used.")
    sent_width: int = Field(description="Pixels, as sent, upright.")
    sent_height: int = Field(description="Pixels, as sent, upright.")
    sent_format: str = Field(description="Media type sent, such as 'image/jpeg'.")
    bytes_sent: int = Field(description="Size of the encoded picture before base64.")
    grid: tuple[int, int] = Field(description="Columns and rows of tiles.")
    tiles: int = Field(description="Tiles the model sees, thumbnail included.")
    # Computed from the grid and not counted by a server; ``Usage`` has the server's own count.
    tokens: int = Field(description="Prompt tokens the tiles cost.")
    max_tiles: int = Field(description="Most tiles allowed for this picture.")


@dataclass(frozen=True)
class PreparedImage:
    """The encoded picture to send and what is known of it.

    Never printed in full: a repr with the payload would fill a log with megabytes.
    """

    payload: bytes = field(repr=False)
    # Kept beside the bytes: the answer's tokens are checked against it.
    info: ImageInfo
    warnings: tuple[str, ...] = ()
    """What a reader of a description should know of how the picture was shown."""


class Estimate(FrozenModel):
    """What describing a picture costs, known without decoding its pixels."""

    source: str
    width: int = Field(description="Pixels, upright.")
    height: int = Field(description="Pixels, upright.")
    grid: tuple[int, int]
    tiles: int
    tokens: int
    payload_bytes: int = Field(description="Expected size of the encoded picture (estimate).")
    cost_usd: tuple[float, float] | None = Field(
        None, description="USD for it on a busy deployment, at best and at worst, where known."
    )

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON."""
        return self.model_dump(mode="json")

    def _repr_html_(self) -> str:
        sizes = f"{self.width} x {self.height} pixels, {self.payload_bytes / 1000:.0f} KB to send"
        facts = [sizes, f"grid {self.grid[0]} x {self.grid[1]}", f"{self.tokens} tokens"]
        if self.cost_usd is not None:
            facts.append(f"{self.cost_usd[0]:.5f} to {self.cost_usd[1]:.5f} USD")
        return card(f"{self.source}: {self.tiles} tiles", facts)


class Usage(FrozenModel):
    """Tokens, as the server counted them.

    Zero where a server gave none, as some do of streams.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def after(self, other: Usage) -> Usage:
        """Both together.

        The repairs of ``extract`` are paid for like its first question.

        >>> first, repair = Usage(prompt_tokens=300), Usage(prompt_tokens=20, completion_tokens=5)
        >>> repair.after(first).total_tokens
        325
        """
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class Timings(FrozenModel):
    """Seconds spent on one call."""

    prepare: float = Field(0.0, description="Reading, turning, shrinking, encoding pictures.")
    first_token: float | None = Field(None, description="Until the first text, when streaming.")
    total: float = 0.0
    # Requests that were sent, the one that was answered included.
    attempts: int = 1
    resent: int = Field(0, description="Of them, those that asked again after a lost answer.")


FinishReason: TypeAlias = Literal["stop", "length"]
"""What is left of the dozen words that servers use: it ended by itself, or it was cut."""


Seen: TypeAlias = Literal["confirmed", "unverifiable"]
""""confirmed" needs more prompt tokens than text and template can explain. "unverifiable" is no bad
news: a picture of one tile, or a server that counts nothing, allows no proof.
"""


class Description(FrozenModel):
    """A model's answer about one or more pictures; ``str()`` gives the text."""

    text: str
    model: str
    finish_reason: FinishReason
    usage: Usage
    images: tuple[ImageInfo, ...] = ()
    seen: Seen = Field("unverifiable", description="Whether the token count proves the picture.")
    # Of the whole call, repairs and retries included, and not of the last request.
    timings: Timings = Timings()
    request_id: str | None = None
    reasoning: str = Field("", description="What a thinking model wrote before its answer.")
    # Sentences for whoever reads the text; an answer with a warning is still an answer.
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = shorten(self.text, 60, placeholder=" ...")
        return f"Description({text!r}, {self.usage.total_tokens} tokens, seen={self.seen!r})"

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON."""
        return self.model_dump(mode="json")

    def _repr_html_(self) -> str:
        facts = [self.model, f"{self.usage.total_tokens} tokens", f"{self.timings.total:.2f} s"]
        facts += [f"picture {self.seen}"] if self.images else []
        facts += ["cut at max_tokens"] if self.finish_reason == "length" else []
        details = {image.source: table(image.model_dump()) for image in self.images}
        details |= {"reasoning": escape(self.reasoning)} if self.reasoning else {}
        return card(self.text, facts, warnings=self.warnings, details=details)
