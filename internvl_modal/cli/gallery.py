"""``internvl-modal gallery``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["gallery"]


def gallery(
    captions: Annotated[Path, typer.Argument(help="A .jsonl, or a folder of texts, of a batch.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; a .html beside it if left out.")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder that the keys start at.")] = None,
) -> int:
    """Write a page to look captions over; it needs no network."""
    from internvl_modal.reports.gallery import write_gallery

    print(write_gallery(captions, out=out, pictures=pictures))
    return 0
