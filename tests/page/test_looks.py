"""How the page looks: light and dark, wide and narrow, and what axe-core finds.

``INTERNVL_MODAL_TEST_PICTURES=1`` writes the pictures of the documentation again.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.loopback import Loopback, Reply, stream_events
from tests.page.conftest import EXAMPLES, KEY, Gateway

PICTURES = Path(__file__).parents[2] / "docs" / "images"
WIDTHS = {"wide": 1240, "tablet": 768, "phone": 360}


def serious(page: Page) -> list[str]:
    """What axe-core finds, of every weight: there is nothing to let pass."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def kept(page: Page, name: str) -> None:
    """Write the picture ``name`` of the documentation, with few colours: it is for a web page."""
    if os.environ.get("INTERNVL_MODAL_TEST_PICTURES"):
        drawn = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
        few = drawn.quantize(256, dither=Image.Dither.NONE)
        few.save(PICTURES / f"{name}.png", optimize=True)


def asked(gateway: Gateway, picture: str) -> Page:
    page = gateway.open()
    page.set_input_files("#file", EXAMPLES / picture)
    page.click("#ask")
    page.wait_for_selector("#facts dd")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_in_every_size_and_colour(demo: Gateway, width: str, scheme: str) -> None:
    demo.page.set_viewport_size({"width": WIDTHS[width], "height": 800})
    demo.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page = demo.open(link=False)
    assert serious(page) == []
    page.click("#ask")
    page.click("#enter-key")
    page.fill("#key-field", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-problem")).to_be_visible()
    assert serious(page) == []
    page.fill("#key-field", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#model.ready")
    page.set_input_files("#file", EXAMPLES / "scene.png")
    page.click("#ask")
    page.wait_for_selector("#facts dd")
    page.click("summary")
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in ground[4:-1].split(",")) > 3 * 128
    assert light == (scheme == "light")
    if width == "phone":
        page.click("summary")
        kept(page, f"page-phone-{scheme}")


def test_everything_can_be_reached_by_the_keyboard(demo: Gateway) -> None:
    page = demo.open()
    page.focus("body")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
    wanted = ["enter-key", "file", "preset", "prompt", "detail", "ask"]
    assert [one for one in dict.fromkeys(reached) if one in wanted] == wanted


def test_the_reference_of_the_api(demo: Gateway) -> None:
    page = demo.page
    page.set_extra_http_headers({"Authorization": f"Bearer {KEY}"})
    page.goto(f"{demo.url}/docs")
    expect(page.locator("h2")).to_contain_text(["POST /", "POST /v1/chat/completions"])
    for summary in page.locator("summary").all():
        summary.click()
    expect(page.locator("body")).to_contain_text("image_data")
    assert serious(page) == []
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_pictures_of_the_documentation(demo: Gateway, told: Gateway, loopback: Loopback) -> None:
    kept(asked(demo, "scene.png"), "page-light")
    demo.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    kept(demo.page, "page-dark")
    text = "A cup of coffee on a saucer, with a spoon, on a wooden table."
    loopback.will(
        Reply(chunks=stream_events(*(f"{word} " for word in text.split()), prompt_tokens=1841))
    )
    page = asked(told, "coffee.jpg")
    page.click("summary")
    kept(page, "page-tiles")
    assert {"page-light.png", "page-dark.png", "page-tiles.png"} <= {
        one.name for one in PICTURES.iterdir()
    }
