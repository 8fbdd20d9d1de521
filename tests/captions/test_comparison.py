"""``compare``: figures that can be reckoned by hand, and going on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.captions.similarity import token_f1
from tests.batch.conftest import lines, make_pictures
from tests.captions.test_gallery import data_of
from tests.loopback import Loopback, Reply, completion

ASKED = "Describe this image in one sentence."


@pytest.fixture
def pair() -> Iterator[tuple[Loopback, Loopback]]:
    with Loopback() as small, Loopback() as large:
        small.will(Reply(body=completion("A red dog.")))
        large.will(Reply(body=completion("A red cat and dog.")))
        yield small, large


def clients(pair: tuple[Loopback, Loopback]) -> dict[str, ivl.Client]:
    retry = ivl.Retry(attempts=1)
    return {
        name: ivl.Client(base_url=server.url, retry=retry)
        for name, server in zip(("2b", "8b"), pair, strict=True)
    }


def test_the_figures(pair: tuple[Loopback, Loopback], tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 5)
    keys = [f"photos/{number:06}.png" for number in range(5)]
    found = ivl.compare(
        "photos",
        clients(pair),
        ASKED,
        references={keys[0]: "a red dog", keys[1]: ["a blue bird", "a cat and a dog"]},
        usd_per_hour=3.6,
        progress=False,
    )
    small, large = found.models["2b"], found.models["8b"]
    assert (small.described, small.failed, large.described) == (5, 0, 5)
    assert (small.words, large.words) == (3, 5)
    # "a red dog" in "a red cat and dog": three words of three and of five.
    assert found.agreement == {("2b", "8b"): pytest.approx(2 * 3 / 8)}
    assert small.f1 == pytest.approx((1.0 + 2 * 2 / 8) / 2)
    assert small.flags == {"same-text": 2}
    assert small.seconds is not None
    assert small.seconds > 0
    assert small.usd_per_1000 == pytest.approx(small.seconds, rel=0.5)  # 0.001 USD a second
    assert found.texts[keys[0]] == {"2b": "A red dog.", "8b": "A red cat and dog."}
    table = str(found)
    for words in ("2b and 8b", "0.75", "flagged same-text", "token F1 with references"):
        assert words in table


def test_it_goes_on_where_it_was(pair: tuple[Loopback, Loopback], tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 4)
    pair[1].will(
        Reply(body=completion("A red cat.")),
        Reply(401, {"error": {"message": "the key is wrong"}}),
    )
    with pytest.raises(ivl.AuthenticationError):
        ivl.compare("photos", clients(pair), ASKED, out="found", concurrency=1, progress=False)
    assert len(pair[0].chats) == 4
    assert len(lines(tmp_path / "found" / "8b.jsonl")) == 1
    pair[1].will(Reply(body=completion("A blue cat.")))
    asked = len(pair[1].chats)
    first = ivl.compare("photos", clients(pair), ASKED, out="found", progress=False)
    assert len(pair[0].chats) == 4
    assert len(pair[1].chats) == asked + 3
    assert first.models["2b"].described == first.models["8b"].described == 4
    # Once more: nothing is asked, and the figures are the same.
    again = ivl.compare("photos", clients(pair), ASKED, out="found", progress=False)
    assert len(pair[0].chats) + len(pair[1].chats) == 4 + asked + 3
    assert again.models["2b"] == first.models["2b"]
    assert again.texts == first.texts
    data = data_of((tmp_path / "found" / "comparison.html").read_text("utf-8"))
    assert [each["name"] for each in data["rows"][0]["answers"]] == ["2b", "8b"]
    assert data["rows"][0]["source"] == "../photos/" + Path(data["rows"][0]["key"]).name
    assert data["tables"][0]["rows"][0] == ["", "2b", "8b"]


def test_failures_and_references_are_shown(pair: tuple[Loopback, Loopback], tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 2)
    (tmp_path / "photos" / "000001.png").write_bytes(b"nothing")
    reference = {"key": "photos/000000.png", "text": "A red dog.", "run": "x", "seen": "confirmed"}
    (tmp_path / "known.jsonl").write_text(json.dumps(reference) + "\n")
    found = ivl.compare("photos", clients(pair), ASKED, references="known.jsonl", progress=False)
    assert found.models["2b"].failed == 1
    assert found.models["2b"].f1 == 1.0
    rows = {row["key"]: row for row in data_of(found.write("x.html").read_text("utf-8"))["rows"]}
    assert rows["photos/000001.png"]["answers"][0]["error"].startswith("ImageError")
    assert rows["photos/000000.png"]["answers"][2]["name"] == "reference"
    assert "<img" in found._repr_html_()


def test_pictures_in_memory_are_shown_too(pair: tuple[Loopback, Loopback]) -> None:
    pictures = [("red", Image.new("RGB", (40, 30), "red"))]
    found = ivl.compare(pictures, clients(pair), ASKED, progress=False)
    [row] = data_of(found.write("x.html").read_text("utf-8"))["rows"]
    assert row["source"].startswith("data:image/jpeg")


def test_what_cannot_be_compared_is_an_error(
    pair: tuple[Loopback, Loopback], tmp_path: Path
) -> None:
    with pytest.raises(ivl.ConfigError, match="no client"):
        ivl.compare("photos", {})
    with pytest.raises(ivl.ConfigError, match="only once"):
        ivl.compare(iter(["a.png"]), clients(pair))
    with pytest.raises(ivl.ConfigError, match="b is a str"):
        ivl.compare("photos", {**clients(pair), "b": "http://a"})  # type: ignore[dict-item]
    one, two = clients(pair).values()
    with pytest.raises(ivl.ConfigError, match="names are alike"):
        ivl.compare("photos", {"me/8B": one, "me 8b": two}, out=tmp_path)
    with pytest.raises(ivl.ConfigError, match="out="):
        ivl.compare("photos", clients(pair), out=print)
    with pytest.raises(ivl.ConfigError, match="references"):
        ivl.compare("photos", clients(pair), references=tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [("A cat.", "a CAT", 1), ("cat cat", "cat", 2 / 3), ("", "", 1), ("", "cat", 0), ("猫坐", "猫", 2 / 3),
     ("dog", "cat", 0)],
)  # fmt: skip
def test_token_f1(text: str, reference: str, f1: float) -> None:
    assert token_f1(text, reference) == pytest.approx(f1)
