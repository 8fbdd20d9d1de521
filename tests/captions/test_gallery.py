"""The gallery: what stands in the page, what may run in it, and where its pictures are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.captions.gallery import Caption, Row, grid, page
from tests.batch.conftest import make_pictures
from tests.loopback import Loopback, Reply, completion

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<!-- <script>",
    '"><img src=x onerror=alert(3)>',
    "{{script}} {{data}}",
    "\u2028\u2029\x00\ud800 ]]>",
    "</style><style>*{display:none}",
    "javascript:alert(4)",
]


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the texts of those that hold code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.code: dict[str, list[str]] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag in ("script", "style"):
            self.code.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.code[self._inside][-1] += data


def data_of(text: str) -> dict[str, Any]:
    """What the page's script reads."""
    found: dict[str, Any] = json.loads(Elements(text).code["script"][0])
    return found


def test_nothing_hostile_becomes_part_of_the_page() -> None:
    rows = [Row(text, [Caption(text, [text], text, text, {text: text})], text) for text in HOSTILE]
    text = page("<b>title</b>", rows, facts=HOSTILE)
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert [tag for tag, _ in elements.found].count("style") == 1
    assert "img" not in [tag for tag, _ in elements.found]
    assert not [name for _, attributes in elements.found for name in attributes if name[:2] == "on"]
    assert [row["key"] for row in data_of(text)["rows"]] == [
        each.encode("utf-8", "backslashreplace").decode() if "\ud800" not in each else each
        for each in HOSTILE
    ]
    clean = Elements(page("x", []))
    assert elements.code["script"][1] == clean.code["script"][1]


def test_its_policy_runs_its_own_script_and_no_other() -> None:
    text = page("x", [])
    elements = Elements(text)
    [policy] = [a["content"] for _, a in elements.found if a.get("http-equiv")]
    assert policy is not None
    for kind, code in (
        ("script", elements.code["script"][1]),
        ("style", elements.code["style"][0]),
    ):
        digest = b64encode(sha256(code.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", text)  # nothing comes from elsewhere


def test_a_notebook_gets_no_script() -> None:
    rows = [Row(text, [Caption(text, [text], name=text)], text) for text in HOSTILE]
    rows += [Row("x", [Caption(error=text)], f"data:image/png;base64,{text}") for text in HOSTILE]
    elements = Elements(grid(rows, HOSTILE[0]))
    assert {tag for tag, _ in elements.found} == {"div", "img", "b"}
    for _, attributes in elements.found:
        assert set(attributes) <= {"style", "src", "alt"}
        assert (attributes.get("src") or "data:image/").startswith("data:image/")


@pytest.fixture
def captions(loopback: Loopback, tmp_path: Path) -> Path:
    """Four pictures and a broken one, described into a file in a folder of its own."""
    photos = make_pictures(tmp_path / "photos", 3)
    Image.new("RGB", (900, 500), "red").save(photos / "scan.tif")
    (photos / "späte nacht #1: 50%.png").write_bytes((photos / "000000.png").read_bytes())
    (photos / "broken.png").write_bytes(b"nothing")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "captions.jsonl"
    loopback.will(Reply(body=completion("This image shows a dog.")))
    with ivl.Client(base_url=loopback.url) as client:
        list(client.describe_many("photos", "Describe it.", out=out, progress=False))
    return out


def test_pictures_are_found_from_where_the_page_is(captions: Path) -> None:
    path = ivl.write_gallery(captions)
    assert path == captions.with_suffix(".html")
    data = data_of(path.read_text(encoding="utf-8"))
    rows = {Path(row["key"]).name: row for row in data["rows"]}
    assert len(rows) == 6
    for name, row in rows.items():
        if name == "scan.tif":
            assert row["source"].startswith("data:image/jpeg;base64,")
        else:
            assert (path.parent / unquote(row["source"])).resolve().name == name
            assert ":" not in row["source"]
    assert "opener" in rows["000000.png"]["answers"][0]["flags"]
    assert rows["broken.png"]["answers"][0]["error"].startswith("ImageError")
    assert rows["000000.png"]["answers"][0]["facts"]["tokens written"] == "3"
    assert data["facts"] == ["internvl2_5-78b"]


def test_the_command_writes_it_and_says_where(captions: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_modal", "gallery", captions],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(captions.with_suffix(".html"))
    assert ivl.write_gallery(captions) == captions.with_suffix(".html")  # again, over its own


def test_a_strangers_page_is_not_written_over(captions: Path) -> None:
    captions.with_suffix(".html").write_text("<h1>mine</h1>")
    with pytest.raises(ivl.ConfigError, match="not a gallery's"):
        ivl.write_gallery(captions)
    assert captions.with_suffix(".html").read_text() == "<h1>mine</h1>"
    assert ivl.write_gallery(captions, out=captions.with_name("other.html")).exists()


def test_what_no_batch_has_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    for wrong in ("x.jsonl", "nothing.jsonl", "."):
        with pytest.raises(ivl.ConfigError):
            ivl.write_gallery(tmp_path / wrong)


def test_pictures_elsewhere_and_none(captions: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "moved")
    (tmp_path / "moved").mkdir(exist_ok=True)
    assert not any(
        row["source"] for row in data_of(ivl.write_gallery(captions).read_text("utf-8"))["rows"]
    )
    (tmp_path / "new").mkdir()
    (tmp_path / "moved").rename(tmp_path / "new" / "photos")
    text = ivl.write_gallery(captions, pictures=tmp_path / "new").read_text("utf-8")
    assert all(row["source"] for row in data_of(text)["rows"])


def test_a_folder_of_texts_and_several_prompts(loopback: Loopback, tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 2)
    loopback.will(
        lambda heard: Reply(body=completion("Dog." if b"tags" not in heard.body else "a, b"))
    )
    with ivl.Client(base_url=loopback.url) as client:
        prompts = {"long": "Describe it.", "tags": "List tags."}
        many = client.describe_many("photos", prompts=prompts, out="texts/", progress=False)
        list(many)
    data = data_of(ivl.write_gallery("texts").read_text("utf-8"))
    [first, _] = data["rows"][0]["answers"]
    assert (first["name"], first["text"], first["flags"]) == ("long", "Dog.", ["one-word"])


def test_a_batch_shows_itself_in_a_notebook(loopback: Loopback, tmp_path: Path) -> None:
    loopback.will(Reply(body=completion("This image shows <b>a dog</b>.")))
    make_pictures(tmp_path / "photos", 30)
    with ivl.Client(base_url=loopback.url) as client:
        batch = client.describe_many("photos", "Describe it.", progress=False)
        assert "<img" not in batch._repr_html_()
        list(batch)
        html = batch._repr_html_()
    assert html.count("<img") == 12
    assert "This image shows &lt;b&gt;a dog" in html
    assert "30 pictures" in html
    assert "opener" in html


def test_a_batch_holds_no_large_picture_for_it(loopback: Loopback) -> None:
    with ivl.Client(base_url=loopback.url) as client:
        pictures = [Image.new("RGB", (4000, 3000)), Image.new("RGB", (40, 30))]
        batch = client.describe_many(pictures, progress=False)
        list(batch)
        assert batch._repr_html_().count("<img") == 1
