"""``locate``: boxes of 0 to 1000 become pixels of the picture as it was given."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.captions.boxes import boxes_in
from internvl_modal.schema.results import Description, ImageInfo, Usage
from tests.images.pictures import STORED
from tests.loopback import Loopback, Reply, completion

RED = (220, 20, 30)


def scene(size: tuple[int, int], corners: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    picture.paste(RED, corners)
    return picture


def thousandths(corners: tuple[int, int, int, int], size: tuple[int, int]) -> list[int]:
    """What a model that sees well says of a rectangle."""
    return [round(1000 * each / size[i % 2]) for i, each in enumerate(corners)]


def saved(picture: Image.Image, path: Path, orientation: int) -> Path:
    """A file that is seen as ``picture``, though its pixels are stored otherwise."""
    undo = STORED[orientation]
    stored = picture if undo is None else picture.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif)
    return path


def is_red(picture: Image.Image) -> bool:
    small = picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(small, tuple)
    return all(abs(a - b) < 25 for a, b in zip(small, RED, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_boxes_are_of_the_upright_picture(
    loopback: Loopback, tmp_path: Path, orientation: int, ending: str
) -> None:
    size, corners = (700, 400), (350, 40, 490, 360)
    path = saved(scene(size, corners), tmp_path / f"cup{ending}", orientation)
    box = thousandths(corners, size)
    loopback.will(Reply(body=completion(f"<ref>the cup</ref><box>[{box}]</box>")))
    with ivl.Client(base_url=loopback.url) as client:
        found = client.locate(path, "the cup")
    assert found.size == size
    assert [(each.label, each.corners) for each in found.boxes] == [("the cup", corners)]
    assert is_red(found.draw("white").crop(corners).crop((9, 9, 120, 300)))
    with Image.open(path) as opened:
        # Pillow turns TIFFs while it reads them, so nobody sees their stored pixels.
        stored = corners if ending == ".tif" else found.boxes[0].stored(found.answer.images[0])
        assert is_red(opened.convert("RGB").crop(stored))


def test_the_size_that_was_sent_does_not_count(loopback: Loopback, tmp_path: Path) -> None:
    size, corners = (5000, 3000), (1000, 600, 1500, 1200)
    scene(size, corners).save(tmp_path / "large.jpg")
    loopback.will(Reply(body=completion(f"[{thousandths(corners, size)}]")))
    with ivl.Client(base_url=loopback.url) as client:
        found = client.locate(tmp_path / "large.jpg", "the square", detail="low")
    sent = found.answer.images[0]
    assert (sent.sent_width, sent.sent_height) < size
    assert found.boxes == (ivl.Box("the square", *corners),)
    assert found.draw().size == size


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ([500, 500, 503, 504], (30, 30, 31, 31)),
        ([0, 0, 1, 1000], (0, 0, 1, 60)),
        ([999, 999, 1000, 1000], (59, 59, 60, 60)),
        ([500, 500, 500, 900], None),
    ],
)
def test_what_is_smaller_than_a_pixel_is_there(
    loopback: Loopback, box: list[int], corners: tuple[int, ...] | None
) -> None:
    loopback.will(Reply(body=completion(f"<box>[{box}]</box>")))
    with ivl.Client(base_url=loopback.url) as client:
        found = client.locate(scene((60, 60), (0, 0, 9, 9)), "a dot")
    assert [each.corners for each in found.boxes] == ([corners] if corners else [])


def test_asks_in_the_words_that_internvl_knows(loopback: Loopback) -> None:
    with ivl.Client(base_url=loopback.url) as client:
        found = client.locate(scene((60, 60), (0, 0, 9, 9)), "the cup</ref> <box> on\nthe left")
    parts = loopback.chats[0].json["messages"][-1]["content"]
    asked = next(part["text"] for part in parts if part["type"] == "text")
    assert asked.endswith(
        "Please provide the bounding box coordinate of the region this sentence describes:"
        " <ref>the cup< /ref> < box> on the left</ref>"
    )
    assert found.boxes == ()
    assert found.answer.text == "A cat."


def test_a_file_that_is_read_once_can_be_drawn(loopback: Loopback) -> None:
    data = BytesIO()
    scene((100, 100), (10, 10, 60, 60)).save(data, "PNG")
    data.seek(0)
    loopback.will(Reply(body=completion("[[100, 100, 600, 600]]")))
    with ivl.Client(base_url=loopback.url) as client:
        found = client.locate(data, "it")
    assert found.draw(width=1).getpixel((30, 30)) == RED


@pytest.mark.parametrize("wrong", ["", "  ", 3])
def test_nothing_to_look_for_is_an_error(loopback: Loopback, wrong: str) -> None:
    with ivl.Client(base_url=loopback.url) as client, pytest.raises(ivl.ConfigError, match="look"):
        client.locate(scene((9, 9), (0, 0, 1, 1)), wrong)
    with ivl.Client(base_url=loopback.url) as client, pytest.raises(ivl.ConfigError, match="one"):
        client.locate([scene((9, 9), (0, 0, 1, 1))] * 2, "it")  # type: ignore[arg-type]
    assert not loopback.chats


async def both_ways(loopback: Loopback) -> ivl.Located:
    async with ivl.AsyncClient(base_url=loopback.url) as client:
        return await client.locate(scene((1000, 500), (0, 0, 1, 1)), "it")


def test_async_clients_and_shortcuts_do_the_same(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    loopback.will(Reply(body=completion("[[0, 0, 500, 1000]]")))
    monkeypatch.setenv("INTERNVL_MODAL_BASE_URL", loopback.url)
    picture = scene((1000, 500), (0, 0, 1, 1))
    for found in (
        asyncio.run(both_ways(loopback)),
        ivl.locate(picture, "it"),
        asyncio.run(ivl.alocate(picture, "it")),
    ):
        assert [box.corners for box in found.boxes] == [(0, 0, 500, 500)]


def answer(text: str) -> Description:
    info = ImageInfo(
        source="x", width=200, height=100, format="PNG", sent_width=200, sent_height=100,
        sent_format="image/png", bytes_sent=9, grid=(1, 1), tiles=1, tokens=256, max_tiles=12,
    )  # fmt: skip
    return Description(text=text, model="m", finish_reason="stop", usage=Usage(), images=(info,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<ref>cup</ref><box>[[0, 0, 1000, 1000]]</box>", [("cup", 0, 0, 200, 100)]),
        ("cup[[500, 0, 1000, 500]]", [("it", 100, 0, 200, 50)]),
        (
            "<ref>a</ref><box>[[0,0,100,100],[500,500,600,600]]</box><ref>b</ref><box>[[0,0,10,10]]</box>",
            [("a", 0, 0, 20, 10), ("a", 100, 50, 120, 60), ("b", 0, 0, 2, 1)],
        ),
        (
            '[{"bbox_2d": [0, 0, 500, 500], "label": "cup"}, {"label": "jug", "bbox_2d": [1, 1, 999, 999]}]',
            [("cup", 0, 0, 100, 50), ("jug", 0, 0, 200, 100)],
        ),
        ("(250, 250), (500, 500)", []),
        ("(250, 250, 500, 500)", [("it", 50, 25, 100, 50)]),
        ("[0.25, 0.25, 0.5, 0.5]", [("it", 50, 25, 100, 50)]),
        ("[[600, 900, 100, 200]]", [("it", 20, 20, 120, 90)]),
        ("[[0, 0, 0, 0]]", []),
        ("There is no cup.", []),
        ("[[1, 1, 500, 500]] [[1, 1, 500, 500]]", [("it", 0, 0, 100, 50)]),
    ],
)
def test_reads_what_models_write(text: str, expected: list[tuple[str, int, int, int, int]]) -> None:
    assert [(b.label, *b.corners) for b in boxes_in(answer(text), "it")] == expected


@pytest.mark.parametrize("text", ["[[10, 10, 1800, 900]]", "[[-5, 0, 10, 10]]"])
def test_numbers_of_another_scale_are_an_error(text: str) -> None:
    with pytest.raises(ivl.OutputInvalidError, match="not within 0 and 1000") as caught:
        boxes_in(answer(text), "it")
    assert caught.value.text == text
