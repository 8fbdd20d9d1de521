"""What a person does on the page, done in Chromium."""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import JSHandle, Page, expect

from tests.loopback import Loopback, Reply, stream_events
from tests.page.conftest import EXAMPLES, KEY, Gateway

SCENE = EXAMPLES / "scene.png"
COFFEE = EXAMPLES / "coffee.jpg"
SENTENCE = (
    "A large red circle at the top left and a small blue square at the top right, on a gray "
    "background. The blue square is right of the red circle."
)


def transfer(page: Page, file: Path, kind: str) -> JSHandle:
    """What a browser hands over when ``file`` is dropped or pasted."""
    return page.evaluate_handle(
        """([name, kind, data]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: kind }));
            return transfer;
        }""",
        [file.name, kind, base64.b64encode(file.read_bytes()).decode()],
    )


def test_choose_and_ask(demo: Gateway) -> None:
    page = demo.open()
    expect(page.locator("#model")).to_have_text("demo")
    page.set_input_files("#file", SCENE)
    page.click("#ask")
    expect(page.locator("#text")).to_have_text(SENTENCE)
    expect(page.locator("#facts")).to_contain_text("25 read, 34 written")
    expect(page.locator("#saw")).to_contain_text("one tile: 9 tokens")
    expect(page.locator("#warnings")).to_contain_text("knows only generated scenes")
    expect(page.locator("#problem")).to_be_hidden()


def test_drop(demo: Gateway) -> None:
    page = demo.open()
    dropped = transfer(page, SCENE, "image/png")
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    expect(page.locator("#name")).to_have_text("scene.png, 5 KB")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(SENTENCE)


def test_paste(demo: Gateway) -> None:
    page = demo.open()
    page.evaluate(
        """async (data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const picture = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        base64.b64encode(SCENE.read_bytes()).decode(),
    )
    page.focus("#prompt")
    page.keyboard.press("Control+V")
    expect(page.locator("#picture")).to_be_visible()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(SENTENCE)


def test_what_is_no_picture(demo: Gateway, tmp_path: Path) -> None:
    page = demo.open()
    report = tmp_path / "report.pdf"
    report.write_bytes(b"%PDF-1.7")
    page.dispatch_event(
        "#drop", "drop", {"dataTransfer": transfer(page, report, "application/pdf")}
    )
    expect(page.locator("#problem")).to_have_text("report.pdf is not a picture.")
    page.click("#ask")
    expect(page.locator("#problem")).to_have_text("Choose a picture first.")


class Pieces:
    """A stream that goes on when it is told to."""

    def __init__(self, *pieces: str) -> None:
        self.go = threading.Event()
        self._events = stream_events(*pieces, prompt_tokens=3700)

    def __iter__(self) -> Iterator[bytes]:
        yield self._events[0]
        self.go.wait(60)
        yield from self._events[1:]


def test_an_answer_is_shown_as_it_comes(told: Gateway, loopback: Loopback) -> None:
    pieces = Pieces("A cup ", "of coffee.")
    loopback.will(Reply(chunks=pieces))
    page = told.open()
    page.set_input_files("#file", COFFEE)
    page.click("#ask")
    expect(page.locator("#text")).to_have_text("A cup ")
    expect(page.locator("#ask")).to_be_disabled()
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
    pieces.go.set()
    expect(page.locator("#text")).to_have_text("A cup of coffee.")
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#facts .good")).to_contain_text("the token count proves it")


def test_the_tiles_are_drawn_over_the_picture(told: Gateway, loopback: Loopback) -> None:
    loopback.will(Reply(chunks=stream_events("A cup.", prompt_tokens=3700)))
    page = told.open()
    page.set_input_files("#file", COFFEE)
    page.click("#ask")
    expect(page.locator("#saw")).to_contain_text(
        "tiles and the whole once more, small: 1,792 tokens"
    )
    line = page.locator("#tiles .line").get_attribute("d")
    assert line == "M0 0H3V2H0ZM1 0V2M2 0V2M0 1H3"
    drawn, picture = page.locator("#tiles").bounding_box(), page.locator("#image").bounding_box()
    assert drawn == picture
    page.uncheck("#tiles-on")
    expect(page.locator("#tiles")).to_be_hidden()


def test_stop_ends_the_answer_at_the_model(told: Gateway, loopback: Loopback) -> None:
    pieces = Pieces("A cup ", "of coffee.")
    loopback.will(Reply(chunks=pieces))
    page = told.open()
    page.set_input_files("#file", COFFEE)
    page.click("#ask")
    expect(page.locator("#text")).to_have_text("A cup ")
    page.keyboard.press("Escape")
    expect(page.locator("#warnings")).to_have_text("Stopped.")
    expect(page.locator("#ask")).to_be_enabled()
    pieces.go.set()
    loopback.will(Reply(chunks=stream_events("Again.", prompt_tokens=3700)))
    page.click("#ask")
    expect(page.locator("#text")).to_have_text("Again.")
    expect(page.locator("#warnings li")).to_have_count(0)


def test_an_error_says_what_happened_and_its_id_is_in_the_log(
    told: Gateway, loopback: Loopback, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "internvl_modal")
    page = told.open()
    broken = tmp_path / "broken.png"
    broken.write_bytes(SCENE.read_bytes()[:900])
    page.set_input_files("#file", broken)
    page.click("#ask")
    expect(page.locator("#problem")).to_contain_text("send it in the request itself")
    number = page.locator("#problem small").inner_text().removeprefix("request ")
    assert f"request {number}" in caplog.text
    assert KEY not in caplog.text
    page.set_input_files("#file", COFFEE)
    loopback.will(Reply(503, headers={"Retry-After": "7"}))
    page.click("#ask")
    expect(page.locator("#problem")).to_contain_text("Asking again in 7 seconds may help.")
    loopback.will(Reply(chunks=stream_events("A cup.", prompt_tokens=20)))
    page.click("#ask")
    expect(page.locator("#problem")).to_contain_text("did not see the picture")
    expect(page.locator("#text")).to_have_text("A cup.")


def test_a_wrong_key_and_then_the_right_one(demo: Gateway) -> None:
    page = demo.open(link=False)
    page.set_input_files("#file", SCENE)
    page.click("#ask")
    page.fill("#key-field", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-problem")).to_have_text("The gateway does not know that key.")
    page.fill("#key-field", KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_text(SENTENCE)
    expect(page.locator("#key-field")).to_have_value("")


STORED = """async () => [
    location.href, document.cookie, JSON.stringify({ ...localStorage, ...sessionStorage }),
    JSON.stringify(await indexedDB.databases()), JSON.stringify(await caches.keys()),
    JSON.stringify(history.state), document.documentElement.outerHTML,
]"""


def test_the_key_is_in_no_address_and_no_storage(demo: Gateway) -> None:
    page = demo.open(link=False)
    page.click("#enter-key")
    page.fill("#key-field", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#model.ready")
    assert not [one for one in page.evaluate(STORED) if KEY in one]
    assert not [one for one in demo.asked if KEY in one]
    page.reload()
    expect(page.locator("#enter-key")).to_have_text("Enter the key")


def test_a_link_works_once(demo: Gateway) -> None:
    page = demo.open()
    assert page.url == f"{demo.url}/"
    assert not [one for one in page.evaluate(STORED)[1:6] if one not in ("", "{}", "[]", "null")]
    link = f"{demo.url}/#once={demo.app.state.guests.invite()}"
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("#model.ready")
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#key-problem")).to_contain_text("The link has been used")


def test_what_was_asked_before_comes_back(told: Gateway, loopback: Loopback) -> None:
    page = told.open()
    page.set_input_files("#file", SCENE)
    loopback.will(Reply(chunks=stream_events("Shapes.", prompt_tokens=3700)))
    page.select_option("#preset", label="Tags")
    page.check("input[value=low]", force=True)
    page.click("#ask")
    expect(page.locator("#entries li")).to_have_count(1)
    page.set_input_files("#file", COFFEE)
    loopback.will(Reply(chunks=stream_events("Coffee.", prompt_tokens=3700)))
    page.select_option("#preset", label="A question of my own")
    page.fill("#prompt", "What is it?")
    page.click("#ask")
    expect(page.locator("#entries li")).to_have_count(2)
    assert "What is it?" in loopback.chats[-1].body.decode()
    page.locator("#entries button", has_text="Shapes.").click()
    expect(page.locator("#text")).to_have_text("Shapes.")
    expect(page.locator("#name")).to_contain_text("scene.png")
    expect(page.locator("#preset option:checked")).to_have_text("Tags")
    expect(page.locator("input[value=low]")).to_be_checked()


def test_the_same_call_as_python_and_curl(demo: Gateway, tmp_path: Path) -> None:
    page = demo.open()
    name = tmp_path / 'a scene\'s "picture".png'
    name.write_bytes(SCENE.read_bytes())
    page.set_input_files("#file", name)
    page.fill("#prompt", 'Describe this "image",\nin $HOME detail; it\'s one.')
    page.click("summary")
    page.click("#copy-code")
    python = page.evaluate("navigator.clipboard.readText()")
    page.check("input[value=curl]", force=True)
    curl = page.locator("#code").inner_text()
    said: list[object] = []
    exec(python, {"KEY": KEY, "print": said.append})
    environment = {**os.environ, "KEY": KEY}
    done = subprocess.run(
        ["bash", "-c", curl], env=environment, capture_output=True, text=True, check=True
    )
    page.click("#ask")
    expect(page.locator("#facts")).to_contain_text("read")
    text = page.locator("#text").inner_text()
    assert text
    assert [str(one) for one in said] == [text]
    assert f'"description":"{text}"' in done.stdout


def test_what_a_model_writes_is_text(told: Gateway, loopback: Loopback, tmp_path: Path) -> None:
    wrong = "<img src=x onerror=document.title=1><script>document.title=1</script>"
    loopback.will(Reply(chunks=stream_events(wrong, prompt_tokens=3700)))
    page = told.open()
    name = tmp_path / "<b>bold.png"
    name.write_bytes(SCENE.read_bytes())
    page.set_input_files("#file", name)
    page.click("#ask")
    expect(page.locator("#entries li")).to_have_count(1)
    expect(page.locator("#text")).to_have_text(wrong)
    expect(page.locator("#name")).to_contain_text("<b>bold.png")
    assert page.locator("#text *, #name *, #entries span *").count() == 0
    expect(page).to_have_title("Describe a picture")
