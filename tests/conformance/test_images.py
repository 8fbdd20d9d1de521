"""Every kind of picture, judged by the tiles that LMDeploy's own code cut from what was sent."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_modal.errors import ImageError
from tests.conformance.pictures import (
    Case,
    encoded,
    no_pictures,
    pictures,
    scene,
    see_through,
    tiles_of,
)
from tests.conformance.serving import Front
from tools.images_table import PAGE, table

CLOSE = 2.0
"""Mean error per colour, of 255: JPEG at quality 90 and what resizing twice costs."""


def by_name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", pictures(), ids=by_name)
def test_the_model_sees_what_a_person_sees(lmdeploy: Front, case: Case) -> None:
    assert case.truth is not None
    described = lmdeploy.client.describe(case.data)
    (info,) = described.images
    seen = lmdeploy.seen()
    (image,) = seen.images
    assert image.size == (info.sent_width, info.sent_height)
    assert len(image.tiles) == info.tiles
    assert image.size[0] * image.size[1] <= case.truth.size[0] * case.truth.size[1]
    expected = tiles_of(case.truth, info.grid)
    assert np.abs(image.tiles - expected).mean() < CLOSE
    assert np.abs(image.tiles - expected).mean((1, 2, 3)).max() < 2 * CLOSE
    assert seen.prompt_tokens == described.usage.prompt_tokens > info.tokens
    assert described.seen == ("confirmed" if info.tiles > 1 else "unverifiable")


@pytest.mark.parametrize("case", no_pictures(), ids=by_name)
def test_what_is_no_picture_is_not_sent(lmdeploy: Front, case: Case) -> None:
    with pytest.raises(ImageError):
        lmdeploy.client.describe(case.data)
    assert lmdeploy.reports() == []


def test_any_source_is_the_same_picture(lmdeploy: Front, tmp_path: Path) -> None:
    data = encoded(scene(), "PNG")
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    pixels = np.asarray(scene())
    for source in (path, str(path), data, io.BytesIO(data), scene(), pixels, pixels / 255.0):
        lmdeploy.client.describe(source)
        (image,) = lmdeploy.seen().images
        assert image.size == scene().size
        assert np.abs(image.tiles - tiles_of(scene(), (2, 1))).max() < CLOSE


def test_frames_that_are_left_out_are_said(lmdeploy: Front) -> None:
    frames = {
        case.name: lmdeploy.client.describe(case.data).images[0].frames
        for case in pictures()
        if case.name.endswith((", animated", ", two pages"))
    }
    assert frames == dict.fromkeys(frames, 2)
    assert len(frames) == 4


def test_the_table_in_the_documentation_is_what_happens(old: Front) -> None:
    assert table(old) in PAGE.read_text(encoding="utf-8")


def test_background(lmdeploy: Front) -> None:
    image, _ = see_through()
    lmdeploy.client.describe(image, background="#0000ff")
    (seen,) = lmdeploy.seen().images
    assert tuple(seen.grid[8, 8]) == (0, 0, 255)


@pytest.mark.parametrize(
    ("detail", "tiles"), [("low", 7), ("medium", 13), ("high", 13), (1, 1), ("auto", 7)]
)
def test_detail_is_the_most_tiles_that_lmdeploy_cuts(
    lmdeploy: Front, detail: str | int, tiles: int
) -> None:
    picture = scene().resize((640, 480)) if detail == "auto" else scene().resize((4000, 3000))
    described = lmdeploy.client.describe(picture, detail=detail)
    assert len(lmdeploy.seen().images[0].tiles) == described.images[0].tiles
    assert described.images[0].tiles == tiles


def test_estimate_is_what_it_costs(lmdeploy: Front) -> None:
    data = encoded(scene().resize((3000, 2000)), "JPEG")
    estimate = lmdeploy.client.estimate(data)
    described = lmdeploy.client.describe(data)
    (image,) = lmdeploy.seen().images
    assert estimate.tiles == len(image.tiles)
    assert estimate.tokens == described.images[0].tokens == 256 * len(image.tiles)


def test_a_picture_alone_is_misread_by_lmdeploy(old: Front) -> None:
    """What the client protects from still happens to a request without it."""
    case = next(case for case in pictures() if case.name.endswith("orientation 6"))
    url = {"url": data_url(case.data)}
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": url}]
    document = {"model": old.model, "messages": [{"role": "user", "content": content}]}
    assert old.post(document).status_code == 200
    assert old.seen().images[0].size == scene().size[::-1]
    url["url"] = data_url(b"no picture")
    assert old.post(document).status_code == 200
    (black,) = old.seen().images
    assert black.size == (32, 32)
    assert black.tiles.max() == 0
    assert Image.open(io.BytesIO(case.data)).size == scene().size[::-1]


def data_url(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
