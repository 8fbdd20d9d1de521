"""Write the table in docs/images.md: what LMDeploy alone sees of each picture, and what with us.

Run from the repository's root as ``python -m tools.images_table``; needs the environment of
``tests/conformance``.
"""

from __future__ import annotations

import base64
import re
import tempfile
from pathlib import Path

import httpx
import numpy as np

import internvl_modal as ivl
from internvl_modal.backends.lmdeploy import LMDeployBackend
from internvl_modal.errors import ImageError
from tests.conformance.environment import lmdeploy_executable
from tests.conformance.pictures import TILE, Case, no_pictures, patches, pictures
from tests.conformance.serving import Front, SeenImage

PAGE = Path(__file__).parents[1] / "docs" / "images.md"
BEGIN, END = "<!-- images_table: begin -->\n", "<!-- images_table: end -->"
RIGHT = 2.0
"""Mean error per colour, of 255, up to which a picture counts as seen."""


def table(front: Front) -> str:
    """The table as Markdown."""
    rows = ["| Picture | LMDeploy alone sees | Through this package |", "|---|---|---|"]
    for case in [*pictures(), *no_pictures()]:
        rows.append(f"| {case.name} | {_alone(front, case)} | {_with_us(front, case)} |")
    return "\n".join(rows) + "\n"


def _alone(front: Front, case: Case) -> str:
    url = "data:image/any;base64," + base64.b64encode(case.data).decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    document = {"model": front.model, "messages": [{"role": "user", "content": content}]}
    reply = front.post(document)
    if reply.status_code != httpx.codes.OK:
        return f"nothing: status {reply.status_code}"
    return _verdict(front.seen().images[0], case)


def _with_us(front: Front, case: Case) -> str:
    try:
        front.client.describe(case.data)
    except ImageError as error:
        return f"`ImageError`: {error.message.removeprefix(f'{error.source}: ')}"
    return _verdict(front.seen().images[0], case)


def _verdict(image: SeenImage, case: Case) -> str:
    width, height = image.size
    tiles = f"{len(image.tiles)} tile{'s' if len(image.tiles) > 1 else ''}"
    if image.size == (32, 32) and image.tiles.max() == 0:
        return "**a black square** of 32x32"
    if case.truth is None:
        return f"**half of it**, the rest grey, {width}x{height}, {tiles}"
    off = np.abs(image.grid - patches(case.truth.resize((TILE, TILE)))).mean()
    found = "it" if off < RIGHT else f"**something else** ({off:.0f} of 255 off)"
    return f"{found}, {width}x{height}, {tiles}"


def write(text: str) -> None:
    """Put ``text`` between the page's marks."""
    page = PAGE.read_text(encoding="utf-8")
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    PAGE.write_text(marked.sub(lambda _: BEGIN + text + END, page), encoding="utf-8")


def main() -> None:
    """Start the server, ask it about every picture, write the page."""
    with tempfile.TemporaryDirectory() as folder:
        backend = LMDeployBackend(
            folder,
            executable=str(lmdeploy_executable()),
            model_name="internvl2_5-78b",
            session_len=8192,
            max_batch_size=1,
        )
        with ivl.Client(backend) as client:
            write(table(Front.of(backend, client)))


if __name__ == "__main__":
    main()
