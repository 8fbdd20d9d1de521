"""What tests of sources share: pictures, and what became of each."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any

from PIL import Image

import internvl_modal as ivl
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.inputs import read
from internvl_modal.batch.sources.keys import Item, Naming
from internvl_modal.batch.sources.unreadable import Unreadable

SIX = tuple(f"{number}.png" for number in range(6))


def png(number: int = 0) -> bytes:
    """A picture that no other number gives."""
    out = io.BytesIO()
    colour = (number & 255, number >> 8 & 255, number >> 16)
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def tar(
    names: tuple[str, ...] = SIX, *, format: int = tarfile.PAX_FORMAT, first: int = 0
) -> tuple[bytes, list[int]]:
    """A tar of different pictures, and where its members begin."""
    out, starts = io.BytesIO(), []
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for number, name in enumerate(names, first):
            member = tarfile.TarInfo(name)
            data = png(number)
            member.size = len(data)
            starts.append(archive.offset)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue(), starts


def items(images: Any, **choice: Any) -> list[Item]:
    """All that is read of ``images``, as the pipeline gets it."""
    said = Choice(**choice)
    naming = Naming(said, max_pixels=10**6, digests=False)
    try:
        return [naming(given, index) for index, given in enumerate(read(images, said))]
    finally:
        naming.close()


def found(images: Any, **choice: Any) -> dict[str, Any]:
    """Sources by key; of what cannot be read, the reason."""
    taken = items(images, **choice)
    assert len({each.key for each in taken}) == len(taken)
    return {
        each.key: each.source.reason if isinstance(each.source, Unreadable) else each.source
        for each in taken
    }


def until_it_raises(images: Any, **choice: Any) -> tuple[dict[str, Any], str]:
    """What is read before ConfigError, and what that says."""
    said, read_so_far = Choice(**choice), {}
    try:
        for key, source in read(images, said):
            read_so_far[key] = source
    except ivl.ConfigError as error:
        return read_so_far, str(error)
    raise AssertionError("nothing was raised")


def outcomes_of(
    client: ivl.Client, images: Any, **options: Any
) -> tuple[list[ivl.Outcome], BaseException | None]:
    """Outcomes until the end or an error, and that."""
    outcomes: list[ivl.Outcome] = []
    try:
        outcomes.extend(each for each in client.describe_many(images, detail=1, **options))
    except BaseException as error:  # noqa: BLE001 - what ends a batch is looked at
        return outcomes, error
    return outcomes, None


def keys(outcomes: Iterable[ivl.Outcome], *, ok: bool) -> set[str]:
    return {each.key for each in outcomes if each.ok is ok}
