"""What every server is spoken to like, unless its own class says otherwise.

Differences are methods and constants here instead of conditions all over the client: a reader of
``vllm`` sees everything that is special about vLLM. Methods take what they need and keep nothing,
so one instance serves all threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from internvl_modal.images.tiles import Tiling
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import HttpResponse, Json
from internvl_modal.protocol.turns import Turn
from internvl_modal.protocol.verification import Sight, check_seen
from internvl_modal.schema.options import DescribeOptions, Detail
from internvl_modal.schema.results import Usage

if TYPE_CHECKING:
    from internvl_modal.models.families import Family
    from internvl_modal.schema.results import PreparedImage


SAMPLING = (
    *("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs"),
    *("min_p", "min_tokens", "min_new_tokens", "ignore_eos", "skip_special_tokens"),
)
"""What engines take beyond our own options; a server of which nothing is known judges itself."""


class Dialect:
    """A template method for each thing in which servers differ; holds no state.

    A server's own class overrides what it does differently, mostly a constant.
    """

    name: ClassVar[str]
    """What ``Capabilities.dialect`` says."""
    json_schema: ClassVar[bool | None] = None
    """Whether ``response_format`` takes a JSON schema; None: it is tried."""
    fixed_tiles: ClassVar[int | None] = 12
    """Tiles of a picture where no request may choose: the limit in InternVL's config.json.

    None: each request may choose.
    """
    assumed: ClassVar[bool] = True
    """Whether that limit is a guess."""
    rule: ClassVar[Literal["internvl", "llama.cpp"]] = "internvl"
    """How it cuts pictures, see ``images.tiles``."""
    greedy: ClassVar[Mapping[str, object]] = {}
    """Sent for ``temperature=0``, where that alone still samples.

    LMDeploy, for one, divides by the temperature, and 0 becomes a tiny number there.
    """
    zero_seed: ClassVar[int] = 0
    """Sent for ``seed=0``."""
    repetition: ClassVar[str] = "repetition_penalty"
    """The field's name; transformers' and vLLM's by default."""
    headers: ClassVar[Mapping[str, str]] = {}
    """Sent with every request for an answer."""
    as_stream: ClassVar[bool] = False
    """Whether whole answers, too, are asked for as a stream.

    For a server that writes an answer to its end though nobody waits for it, and a stream not.
    """
    most_stops: ClassVar[int | None] = 4
    """Stop strings that a request may hold; the client looks for all of them by itself.

    OpenAI refuses a fifth one with a 400.
    """
    parameters: ClassVar[Mapping[str, str]] = {name: name for name in SAMPLING}
    """Fields that requests to the gateway may hold for it, beyond our own options, and its names
    for them."""
    version_paths: ClassVar[tuple[str, ...]] = ()
    """What to ask, below the server's root, to tell its versions apart; see ``version``."""

    def version(self, path: str, response: HttpResponse) -> Dialect | None:
        """The dialect that an answer to one of ``version_paths`` tells; None where it does not."""
        # The parameters are named for those who override it; ``del`` says that they are unused
        # here.
        del path, response
        return None

    def capabilities(self, family: Family | None) -> Capabilities:
        """What is known of a server of this kind before it has answered anything."""
        return Capabilities(
            self.name,
            tokens_per_tile=family.tokens_per_tile if family else None,
            max_tiles=self.fixed_tiles,
            json_schema=self.json_schema,
            assumed=self.assumed or (family is not None and not family.plain),
        )

    def tiling(self, capabilities: Capabilities, detail: Detail) -> Tiling:
        """How the server cuts pictures sent with ``detail``."""
        del detail
        return Tiling(
            tile_pixels=capabilities.tile_pixels,
            tokens_per_tile=capabilities.tokens_per_tile or 256,
            max_tiles=capabilities.max_tiles,
            rule=self.rule,
        )

    def tiles_question(self, capabilities: Capabilities, detail: Detail, model: str) -> Json | None:
        """A small request that tells whether a request may set its limit of tiles.

        None where that is known, or need not be for ``detail``.
        """
        del capabilities, detail, model
        return None

    def tile_limit(self, call: ChatCall) -> Json:
        """Fields that set the limit for a whole request."""
        del call
        return {}

    def messages(self, call: ChatCall, attach: Callable[[PreparedImage], str]) -> list[Json]:
        """The ``messages`` of the request; ``attach`` gives a picture's URL."""
        return [
            {
                "role": turn.role,
                "content": self.content(turn, call, attach) if turn.images else turn.plain,
            }
            for turn in call.turns
        ]

    def content(
        self, turn: Turn, call: ChatCall, attach: Callable[[PreparedImage], str]
    ) -> list[Json]:
        """Text and pictures of one turn, each picture after its label.

        Parts in OpenAI's order; a server that moves pictures before all text overrides it.
        """
        parts: list[Json] = []
        for label, image in zip(turn.labels, turn.images, strict=True):
            if label:
                parts.append(text_part(label))
            parts.append(self.picture(image, attach(image)))
        return [*parts, text_part(turn.plain)]

    def picture(self, image: PreparedImage, url: str) -> Json:
        """One picture, with its limit of tiles where the server takes one there."""
        del image
        return {"type": "image_url", "image_url": {"url": url}}

    def sampling(self, options: DescribeOptions) -> Json:
        """The sampling parameters, so that 0 means what the user means by it."""
        given: Json = {
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_k": options.top_k,
            # None is left out below: a server's own default is not the same as null.
            "seed": self.zero_seed if options.seed == 0 else options.seed,
            "stop": list(options.stop[: self.most_stops]) or None,
            self.repetition: options.repetition_penalty,
        }
        if options.temperature == 0:
            given |= self.greedy
        return {name: value for name, value in given.items() if value is not None}

    def answer_format(self, schema: Json) -> Json:
        """Fields that hold the answer to a JSON schema."""
        form = {"name": "answer", "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": form}}

    def sight(
        self, call: ChatCall, usage: Usage | None, body: Json, *, request_id: str | None, text: str
    ) -> Sight:
        """Whether the answer is about the pictures; raises ImageNotSeenError.

        ``body`` is the answer's document, or the event of a stream that told most.
        """
        del body
        return check_seen(call, usage, request_id=request_id, text=text)


def text_part(text: str) -> Json:
    """One text among the parts of a message."""
    return {"type": "text", "text": text}
