"""The gallery in Chromium: without a network, with the keyboard, light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect, sync_playwright

from internvl_modal.captions.gallery import Caption, Row, Table, page
from tests.captions.test_gallery import HOSTILE

ENABLED = "INTERNVL_MODAL_TEST_BROWSER"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        os.environ.get(ENABLED) != "1", reason=f"needs Debian's chromium: set {ENABLED}=1"
    ),
]
COUNT = 150


def rows() -> list[Row]:
    found = [
        Row(f"photos/{number:03}.png", [Caption(f"Picture {number} of a boat.")], f"{number}.png")
        for number in range(COUNT - len(HOSTILE) - 2)
    ]
    found += [Row(text, [Caption(text, ["leftover"])], text) for text in HOSTILE]
    found.append(Row("broken.png", [Caption(error="ImageError: the file is cut off")]))
    found.append(Row("two", [Caption("One.", name="2b"), Caption("Two.", ["cut"], name="8b")]))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for number in range(COUNT):
        picture = Image.new("RGB", (64, 48), (number, 90, 255 - number))
        ImageDraw.Draw(picture).ellipse((9, 9, 40, 40), "white")
        picture.save(folder / f"{number}.png")
    table = Table("Side by side", [["", "2b"], ["described", "150"]])
    (folder / "captions.html").write_bytes(
        page("captions.jsonl", rows(), tables=[table]).encode("utf-8", "backslashreplace")
    )
    return folder


@pytest.fixture(params=["light", "dark"])
def gallery(place: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    complaints: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        # Root may not use the sandbox, and CI is root in a container.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context(color_scheme=request.param, offline=True)
        context.set_default_timeout(20_000)
        shown = context.new_page()
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: complaints.append(dialog.message))
        shown.on("request", lambda each: asked.append(each.url))
        shown.goto((place / "captions.html").as_uri())
        yield shown
        browser.close()
    assert complaints == []
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]


def count(gallery: Page) -> str:
    return gallery.inner_text("#count").partition(" pictures")[0]


def at(gallery: Page) -> Any:
    return gallery.evaluate("document.activeElement.dataset.place")


def test_shows_pictures_and_captions_offline(gallery: Page) -> None:
    assert count(gallery) == str(COUNT)
    assert "Picture 0 of a boat." in gallery.inner_text(".card >> nth=0")
    expect(gallery.locator(".card img").first).to_have_js_property("naturalWidth", 64)
    assert "described" in gallery.inner_text("#summary")
    assert gallery.locator("mark").count() == 0


def test_searches_and_filters(gallery: Page) -> None:
    gallery.fill("#search", "picture 12 boat")
    expect(gallery.locator(".card")).to_have_count(12)
    shown = gallery.locator(".card").all_inner_texts()
    assert all("12" in each for each in shown)
    assert gallery.locator("mark").count() >= 3
    gallery.press("#search", "Escape")
    assert count(gallery) == str(COUNT)
    gallery.click("#flags button:has-text('leftover')")
    assert count(gallery) == f"{len(HOSTILE)} of {COUNT}"
    shown = gallery.locator(".card").all_inner_texts()
    assert "<script>alert(1)</script>" in shown[0]
    gallery.click("#flags button:has-text('leftover')")
    gallery.click("#states button:has-text('Failed')")
    assert count(gallery) == f"1 of {COUNT}"
    assert "the file is cut off" in gallery.inner_text(".card")


def test_is_moved_through_with_the_keyboard(gallery: Page) -> None:
    for key in ("j", "j", "ArrowRight"):
        gallery.keyboard.press(key)
    assert at(gallery) == "2"
    gallery.keyboard.press("Enter")
    assert "Picture 2 of" in gallery.inner_text("#shown")
    gallery.keyboard.press("ArrowRight")
    assert "Picture 3 of" in gallery.inner_text("#shown")
    gallery.keyboard.press("Escape")
    expect(gallery.locator(".card:focus")).to_have_attribute("data-place", "3")
    gallery.keyboard.press("End")
    assert at(gallery) == str(COUNT - 1)
    gallery.keyboard.press("Home")
    assert at(gallery) == "0"
    gallery.keyboard.press("f")
    assert count(gallery) == f"{len(HOSTILE) + 1} of {COUNT}"
    gallery.keyboard.press("a")
    gallery.keyboard.press("?")
    assert "Keyboard" in gallery.inner_text("#keys")
    gallery.keyboard.press("Escape")
    gallery.keyboard.press("/")
    gallery.keyboard.type("boat")
    assert gallery.input_value("#search") == "boat"


@pytest.mark.parametrize("width", [1280, 400])
def test_everybody_can_use_it(gallery: Page, width: int) -> None:
    gallery.set_viewport_size({"width": width, "height": 800})
    assert not gallery.evaluate("document.documentElement.scrollWidth > innerWidth")
    # What axe needs to run is what the page's policy forbids.
    found = Axe().run(gallery)
    assert found.violations_count == 0, found.generate_report()
    gallery.keyboard.press("j")
    gallery.keyboard.press("Enter")
    found = Axe().run(gallery)
    assert found.violations_count == 0, found.generate_report()
