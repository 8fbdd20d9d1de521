"""The page to look captions over, in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import internvl_modal as ivl
from tests.page.test_looks import kept, serious
from tools.demo_model.scenes import make_scene, render


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight generated scenes, as the demo model describes them."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "scenes").mkdir()
    for number in range(8):
        render(make_scene(number), 320).save(folder / "scenes" / f"{number}.png")
    with pytest.MonkeyPatch.context() as monkeypatch, ivl.Client("local", model="demo") as client:
        monkeypatch.chdir(folder)  # so that keys are short
        with client.describe_many("scenes", out="captions.jsonl") as batch:
            assert [outcome.ok for outcome in batch] == [True] * 8
    return Path(ivl.write_gallery(folder / "captions.jsonl"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gallery_in_both_colours(browser: Browser, gallery: Path, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 1240, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(gallery.as_uri())
    pictures = page.locator("img")
    expect(pictures).to_have_count(8)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()  # it is loaded when it is needed
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    page.evaluate("scrollTo(0, 0)")
    assert serious(page) == []
    assert all(one.startswith(("file:", "data:", "blob:")) for one in asked)
    kept(page, f"gallery-{scheme}")
    context.close()
