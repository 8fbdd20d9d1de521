"""No two pictures share a key, and what is taken stays as it was."""

from __future__ import annotations

import copy
import io
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import internvl_modal as ivl
from internvl_modal.batch.sources.keys import Item
from internvl_modal.batch.sources.known_keys import KnownKeys
from internvl_modal.images import prepare
from tests.batch.conftest import Fast, lines
from tests.batch.sources import items, keys, outcomes_of, png


@pytest.mark.parametrize("out", [None, "out.jsonl", "out/", "out.parquet"])
def test_a_key_that_comes_again_with_another_picture(client: ivl.Client, out: str | None) -> None:
    Path("a.png").write_bytes(png(1))
    Path("b.png").write_bytes(png(2))
    given = [("k", "a.png"), ("k", "b.png"), ("k", png(3)), ("k", "./a.png"), ("l", png(3))]
    outcomes, error = outcomes_of(client, given, out=out)
    assert error is None
    failed = [each for each in outcomes if not each.ok]
    assert keys(outcomes, ok=True) == {"k", "l"}
    assert len({each.key for each in failed}) == 2
    words = sorted(str(each.error) for each in failed)
    assert "two pictures have the key k: a.png and b.png (give keys" in words[0] + words[1]
    assert "two pictures have the key k: a.png and bytes (" in words[0] + words[1]
    if out is not None:
        again = client.describe_many(given, detail=1, out=out)
        assert not list(again)
        assert again.summary.failed_before == 2
        assert again.summary.skipped == 5


@pytest.mark.parametrize(
    "again",
    [
        lambda: "x.png",
        lambda: Path("x.png").resolve(),
        png,
        lambda: Image.open(io.BytesIO(png())),
        lambda: np.zeros((4, 4, 3), "uint8"),
        lambda: ["x.png", png()],
        lambda: io.BytesIO(png()),
        lambda: "https://x.org/a.png",
        lambda: memoryview(png()),
    ],
)
def test_the_same_picture_again_is_no_other(again: Any) -> None:
    first, second = items([("k", again()), ("k", again())])
    assert first.key == second.key == "k"


def test_keys_of_manifests_in_several_folders() -> None:
    """Both say ``0.png`` and mean their own."""
    for name in "ab":
        Path(name).mkdir()
        Path(f"{name}/list.csv").write_text("image\n0.png\n")
    first, second = items("?/list.csv")
    assert first.key == "0.png"
    assert second.key.startswith("0.png#")
    with pytest.raises(ivl.ImageError, match=r"0\.png: [ab]/0\.png and [ab]/0\.png \(give keys"):
        prepare(second.source)


def test_known_keys_by_the_hundred_thousand() -> None:
    known = KnownKeys()
    for number in range(100_000):
        assert known.note(f"key {number}", b"%d" % number, f"name {number}") is None
    for number in range(0, 100_000, 7):
        assert known.note(f"key {number}", b"%d" % number, "") is None
        assert known.note(f"key {number}", b"other", "") == f"name {number}"
    known.close()


def gif(*colours: str) -> io.BytesIO:
    out = io.BytesIO()
    first, *others = (Image.new("RGB", (50, 50), colour) for colour in colours)
    first.save(out, "GIF", save_all=True, append_images=others)
    return out


def colours(taken: list[Item]) -> list[tuple[int, ...]]:
    found = []
    for each in taken:
        with Image.open(io.BytesIO(prepare(each.source).payload)) as sent:
            found.append(sent.convert("RGB").getpixel((1, 1)))
    return found


def test_every_frame_of_an_animation() -> None:
    frames = ImageSequence.Iterator(Image.open(gif("red", "lime", "blue")))
    assert colours(items(frames)) == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    "how", ["array", "memoryview", "bytearray", "BytesIO", "PIL", "pair", "list", "row"]
)
def test_a_buffer_that_is_used_again(how: str) -> None:
    array = np.zeros((50, 50, 3), "uint8")
    image, file = Image.new("RGB", (50, 50)), io.BytesIO()
    data = bytearray()

    def frames() -> Iterator[Any]:
        for value in (10, 100, 200):
            array[:] = value
            image.paste((value,) * 3, (0, 0, 50, 50))
            file.seek(0)
            image.save(file, "PNG")
            file.truncate()
            file.seek(0)
            data[:] = file.getvalue()
            yield {
                "array": array, "memoryview": memoryview(bytearray(data)), "bytearray": data, "BytesIO": file,
                "PIL": image, "pair": (f"{value}", array), "list": [image], "row": {"image": array},
            }[how]  # fmt: skip

    taken = items(frames())
    if how == "list":
        taken = [each._replace(source=each.source[0]) for each in taken]
    assert colours(taken) == [(10,) * 3, (100,) * 3, (200,) * 3]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_copy_is_sent_as_the_picture_would_be(kind: str, orientation: int) -> None:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    noise = Image.effect_noise((700, 500), 60).convert("RGB")
    noise.paste((250, 0, 0), (0, 0, 100, 50))
    noise.save(out, kind, exif=exif)
    (taken,) = items([Image.open(out)])
    mine, theirs = prepare(taken.source), prepare(Image.open(out))
    assert mine.payload == theirs.payload
    same = theirs.info
    if kind == "TIFF":  # Pillow has turned it
        same = same.model_copy(update={"orientation": 1})
    assert mine.info.model_dump(exclude={"width", "height"}) == same.model_dump(
        exclude={"width", "height"}
    )


def test_what_cannot_be_copied_fails_by_itself(client: ivl.Client) -> None:
    whole = io.BytesIO()
    Image.effect_noise((300, 300), 60).save(whole, "JPEG")
    cut = io.BytesIO(whole.getvalue()[:-5_000])
    outcomes, error = outcomes_of(client, [Image.open(cut), png(), Image.new("RGB", (9, 9))])
    assert error is None
    assert [each.ok for each in sorted(outcomes, key=lambda each: each.key)] == [False, True, True]


def test_sources_close_what_they_copied(client: ivl.Client, server: Fast) -> None:
    def opened() -> Iterator[Image.Image]:
        for number in range(5):
            with Image.open(io.BytesIO(png(number))) as image:
                yield image

    outcomes, _ = outcomes_of(client, opened(), out="out.jsonl")
    assert all(each.ok for each in outcomes)
    assert len(lines(Path("out.jsonl"))) == 5
    assert len({name for name, _ in server.report()["log"]}) == 5


@pytest.mark.parametrize("out", ["out.jsonl", "out/", "out.parquet", "memory://again/out.jsonl"])
def test_a_later_run_with_another_picture_under_a_key(client: ivl.Client, out: str) -> None:
    outcomes, _ = outcomes_of(client, {"k": png(1), "l": png(2), "bad": b"no picture"}, out=out)
    assert keys(outcomes, ok=True) == {"k", "l"}
    given = {"k": png(3), "l": png(2), "bad": png(4)}
    for run in range(2):
        again = client.describe_many(given, detail=1, out=out)
        clashes = list(again)
        assert len(clashes) == (1 if run == 0 else 0)
        assert again.summary.skipped == (2 if run == 0 else 3)
        assert all(each.key.startswith("k#") and not each.ok for each in clashes)
        for each in clashes:
            words = r"two pictures have the key k: that of an earlier run \(content (\w{16})\) and bytes"
            assert re.search(words, str(each.error))


def test_a_later_run_with_another_file_under_a_key(client: ivl.Client) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
    Path("a/1.png").write_bytes(png(1))
    Path("b/1.png").write_bytes(png(1))
    Path("a/2.png").write_bytes(png(2))
    outcomes, _ = outcomes_of(client, {"k": "a/1.png"}, out="o.jsonl")
    assert keys(outcomes, ok=True) == {"k"}
    moved = client.describe_many({"k": "b/1.png"}, detail=1, out="o.jsonl")
    assert (list(moved), moved.summary.skipped) == ([], 1)
    (clash,) = client.describe_many({"k": "a/2.png"}, detail=1, out="o.jsonl")
    assert "key k: that of an earlier run" in str(clash.error)
    assert "and a/2.png" in str(clash.error)


def red(**how: Any) -> Image.Image:
    return Image.new("RGB", (4, 6), **{"color": (9, 0, 0), **how})


def quantized(colour: int) -> Image.Image:
    """One index everywhere: only its palette tells of the colour."""
    made = Image.new("P", (4, 4))
    made.putpalette([colour, 0, 0] * 256)
    return made


OTHERS: list[tuple[Any, Any]] = [
    (red(), red(color=(8, 0, 0))),
    (red(), red().transpose(Image.Transpose.ROTATE_90)),
    (red(), red().convert("L")),
    (quantized(1), quantized(2)),
    (np.zeros((4, 4, 3), "uint8"), np.ones((4, 4, 3), "uint8")),
    (np.zeros((4, 4), "uint8"), np.zeros((4, 4), "float32")),
    (np.zeros((2, 8), "uint8"), np.zeros((8, 2), "uint8")),
    ([png(1), red()], [png(1), red(color=(8, 0, 0))]),
    (f"data:image/png;base64,{b64encode(png(1)).decode()}",
     f"data:image/png;base64,{b64encode(png(2)).decode()}"),
    (red(), png(1)),
]  # fmt: skip


@pytest.mark.parametrize(("first", "other"), OTHERS)
def test_a_later_run_with_other_pixels_under_a_key(
    client: ivl.Client, first: Any, other: Any
) -> None:
    out = "o.jsonl"
    assert keys(outcomes_of(client, {"k": first}, out=out)[0], ok=True) == {"k"}
    again = client.describe_many({"k": copy.deepcopy(first)}, detail=1, out=out)
    assert (list(again), again.summary.skipped) == ([], 1)
    (clash,) = client.describe_many({"k": other}, detail=1, out=out)
    content = lines(Path(out))[0]["content"]
    assert f"two pictures have the key k: that of an earlier run (content {content})" in str(
        clash.error
    )


def test_an_opened_file_is_no_other_picture_than_before(client: ivl.Client) -> None:
    """Decoded late and saved anew, its pixels are the same."""
    red().save("a.png")
    red().save("b.bmp")
    first = {"k": Image.open("a.png")}
    assert keys(outcomes_of(client, first, out="o.jsonl")[0], ok=True) == {"k"}
    assert outcomes_of(client, {"k": Image.open("b.bmp")}, out="o.jsonl") == ([], None)


def content(source: Any) -> str:
    return items({"k": source})[0].content


@pytest.mark.parametrize("start", ["https://x.org/a.png", "s3://bucket/a.png", "a.png"])
def test_addresses_are_told_apart_in_a_later_run(start: str) -> None:
    assert content(start) == content(start)
    assert len({content(start), content(start.replace("a.png", "b.png")), ""}) == 3
    (named,) = items([start])
    assert named.content == ""
    listed = content([start, png()])
    assert listed == content([start, png()])
    assert listed != content([start.replace("a.png", "b.png"), png()])


def test_a_url_that_is_signed_anew_is_no_other() -> None:
    signed = [f"https://x.org/a.png?id=1&X-Amz-Signature={n}{'a' * 40}" for n in range(2)]
    assert content(signed[0]) == content(signed[1])
    assert content(signed[0]) != content(signed[0].replace("id=1", "id=2"))


def test_no_password_of_an_address_is_in_a_key() -> None:
    address = "ftp://user:secret@x.org/a.png"
    (found,) = items([address])
    assert found.key == "ftp://x.org/a.png"
    assert content(address) == content("ftp://x.org/a.png")
