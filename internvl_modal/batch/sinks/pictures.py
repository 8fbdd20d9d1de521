"""The picture behind an outcome, as a file: for outputs that hold pictures beside their texts."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from internvl_modal.batch.outcome import Outcome
from internvl_modal.errors import ConfigError
from internvl_modal.flows.turns import FETCH_TIMEOUT, fetched
from internvl_modal.images.sources import Reading, read_bytes
from internvl_modal.schema.options import DescribeOptions

Read = Callable[[Outcome], "list[tuple[bytes, str]]"]
"""The files of an outcome's pictures, each with the ending that its name should have."""

_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "PPM": "ppm"}


def reader(options: DescribeOptions) -> Read:
    """Reads as describing does, with its limits."""
    reading: Reading = {
        "fetch": fetched,
        "timeout": FETCH_TIMEOUT,
        "allow_private_urls": options.allow_private_urls,
        "user_agent": options.user_agent,
    }
    return partial(_files, reading)


def _files(reading: Reading, outcome: Outcome) -> list[tuple[bytes, str]]:
    """Raises ConfigError for a source that can be read only once, ImageError for one that is gone.

    A picture as it was given, byte for byte; of pixels in memory a PNG.
    """
    source: Any = outcome.source
    several = source if isinstance(source, list | tuple) else [source]
    told = outcome.description.images if outcome.description is not None else ()
    kinds = [each.format for each in told][: len(several)]
    return [
        _file(each, kind, reading, outcome.key)
        for each, kind in zip(several, kinds + [""] * (len(several) - len(kinds)), strict=True)
    ]


def _file(source: Any, kind: str, reading: Reading, key: str) -> tuple[bytes, str]:
    if hasattr(source, "getpalette"):
        return _png(source), "png"
    if isinstance(source, io.BytesIO):
        source = source.getvalue()
    elif hasattr(source, "__array_interface__") and not isinstance(source, str):
        from internvl_modal.images.arrays import from_array

        return _png(from_array(source, key)[0]), "png"
    elif isinstance(source, io.IOBase):
        raise ConfigError(
            f"the picture of {key} can be read only once", hint="give its path or its bytes"
        )
    ending = _ENDINGS.get(kind, kind.lower()) or _suffix(source) or "img"
    return read_bytes(source, reading), ending


def _suffix(source: object) -> str:
    name = os.fsdecode(source) if isinstance(source, str | os.PathLike) else ""
    return os.path.splitext(name)[1].lstrip(".").lower()[:5]  # noqa: PTH122 - of URLs too


def _png(image: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()
