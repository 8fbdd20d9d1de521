"""Small pictures for pages that have to hold them."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from io import BytesIO

from internvl_modal.errors import InternVLError
from internvl_modal.images.names import is_url
from internvl_modal.schema.inputs import ImageSource

__all__ = ["thumbnail"]

LONGEST = 320
"""Pixels of the longer side: two for each of a card, as good screens show them."""
QUALITY = 78


def thumbnail(source: ImageSource) -> str:
    """A data URL of a small JPEG; "" for what is no picture here and now, such as a URL.

    Nothing is fetched, and a file object that was read has nothing left.
    """
    if isinstance(source, list | tuple):
        return thumbnail(source[0]) if source else ""
    if isinstance(source, str) and is_url(source):
        return ""
    from internvl_modal.images.load import open_picture
    from internvl_modal.images.render import MAX_BYTES, render

    out = BytesIO()
    with suppress(InternVLError, OSError, ValueError):
        picture = open_picture(source, {})
        scale = min(1.0, LONGEST / max(picture.size))
        width, height = (max(1, round(side * scale)) for side in picture.size)
        image = render(picture, (width, height), "white", MAX_BYTES)[0]
        image.convert("RGB").save(out, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}" if out.tell() else ""
