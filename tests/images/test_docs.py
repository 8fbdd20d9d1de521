"""The examples of docs/images.md run, and print what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from internvl_modal.images.fetch import fetch
from tests.images.pictures import corners, encoded

PAGE = (Path(__file__).parents[2] / "docs" / "images.md").read_text()


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    photo = Image.effect_noise((640, 488), 60).convert("RGB")
    Path("harbour.jpg").write_bytes(
        encoded(corners(4000, 3000), "JPEG", exif=turned, subsampling=0)
    )
    Path("photo-640x488.jpg").write_bytes(encoded(photo, "JPEG"))
    Path("half.jpg").write_bytes(encoded(photo, "JPEG")[:9000])
    corners(300, 400).save("report.pdf", save_all=True, append_images=[corners(300, 400)])
    Path("drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    names: dict[str, object] = {"fetch": fetch}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    said = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert said is not None

    def without_counts(text: str) -> str:
        return re.sub(r"\(\d+ bytes not", "(n bytes not", text)

    assert without_counts(capsys.readouterr().out) == without_counts(said[1])
