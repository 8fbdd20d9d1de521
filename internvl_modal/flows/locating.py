"""``locate``: ask for boxes, and map them back to the picture as it was given."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from internvl_modal.captions.boxes import Located, boxes_in, grounding_prompt
from internvl_modal.errors import ConfigError
from internvl_modal.flows.core import Core
from internvl_modal.flows.steps import Blocking, Flow
from internvl_modal.flows.turns import FETCH_TIMEOUT, fetched
from internvl_modal.schema.inputs import BinaryFile, ImageSource
from internvl_modal.schema.options import DescribeOptions, Options

if TYPE_CHECKING:
    from PIL import Image

MOST_TOKENS = 512
"""A box takes some 20, and a picture of a crowd has many."""


def locate(core: Core, image: ImageSource, what: str, options: Options) -> Flow[Located]:
    """Ask where ``what`` is in one picture; raises OutputInvalidError for numbers of no scale."""
    if not isinstance(what, str) or not what.strip():
        raise ConfigError("nothing to look for was given", hint="say it: 'the red cup'")
    if isinstance(image, list | tuple):
        raise ConfigError("boxes are of one picture", hint="call it once for each")
    asked: Options = {"grounding": True, "max_tokens": MOST_TOKENS, **options}
    # A file can be read once, and is wanted again by ``draw``.
    source: ImageSource = (yield Blocking(image.read)) if isinstance(image, BinaryFile) else image
    answer = yield from core.describe(source, grounding_prompt(what), asked)
    pixels = partial(_pixels, source, DescribeOptions.parse(asked))
    return Located(what, boxes_in(answer, what), answer, pixels)


def _pixels(source: ImageSource, options: DescribeOptions) -> Image.Image:
    """The picture upright, at its own size; raises ImageError where it is no longer there."""
    from internvl_modal.images.load import open_picture
    from internvl_modal.images.render import render

    picture = open_picture(
        source,
        {
            "fetch": fetched,
            "timeout": FETCH_TIMEOUT,
            "allow_private_urls": options.allow_private_urls,
            "user_agent": options.user_agent,
            "max_pixels": options.max_pixels,
            "max_bytes_decoded": options.max_bytes_decoded,
        },
    )
    picture.check_whole()
    return render(picture, picture.size, options.background, options.max_bytes_decoded)[0]
