"""The page of the gateway as HTTP has it; ``tests/page`` opens it in a browser."""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from internvl_modal.captions.presets.registry import PRESETS
from internvl_modal.client.aio import AsyncClient
from internvl_modal.deployment.served_app import FixedBackend
from internvl_modal.gateway import create_app
from internvl_modal.planning.api import plan
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.transport.retry import Retry
from tests.asgi import serving
from tests.loopback import Loopback, Reply, stream_events
from tests.test_gateway import BEARER, KEY, picture

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def app(loopback: Loopback) -> object:
    backend = FixedBackend(loopback.url, "upstream-key", "internvl2_5-78b", "lmdeploy-0.7.3")
    return create_app(AsyncClient(backend, retry=Retry(attempts=1)), api_key=KEY)


@pytest.fixture
def http(app: object) -> Iterator[httpx.Client]:
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("accept", [BROWSER, "*/*", "text/html", "application/json, text/html"])
def test_a_browser_gets_the_page_without_the_key(
    loopback: Loopback, http: httpx.Client, accept: str
) -> None:
    page = http.get("/", headers={"Accept": accept})
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert http.head("/", headers={"Accept": accept}).status_code == 200
    for name in re.findall(r'(?:src|href)="(page/[^"]+)"', page.text):
        assert http.get(f"/{name}").status_code == 200
    assert not loopback.heard, "nobody is woken"


def test_the_page_offers_the_presets(http: httpx.Client) -> None:
    page = html.unescape(http.get("/").text)
    for name in ("caption", "alt-text", "dense", "tags", "ocr"):
        assert f'<option value="{PRESETS[name].prompt}"' in page
    assert 'data-detail="high" data-tokens="4096">The text in the picture' in page


def test_a_program_gets_what_it_got_before(http: httpx.Client) -> None:
    json_only = {"Accept": "application/json"}
    assert http.get("/", headers=json_only).status_code == 401
    refused = http.get("/", headers={**json_only, **BEARER})
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert http.request("PUT", "/", headers=BEARER).headers["allow"] == "GET, HEAD, POST"


def test_the_page_may_load_nothing_from_elsewhere(http: httpx.Client) -> None:
    for path in ("/", "/docs"):
        page = http.get(path, headers=BEARER)
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', page.text)
        assert not re.search(r"<style|<script>|style=|\son\w+=", page.text), "nothing inline"


@pytest.mark.parametrize("path", ["/", "/health", "/page/page.js", "/page/page.css"])
def test_a_body_needs_the_key_wherever_it_goes(http: httpx.Client, path: str) -> None:
    assert http.post(path, content=bytes(1000)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/docs", "/page/session", "/page/../docs", "/page/", "/openapi.json"]
)
def test_nothing_else_is_open(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 401
    assert http.post(path).status_code == 401


def test_a_link_lets_one_page_in(app: object, http: httpx.Client) -> None:
    once = {"Authorization": f"Bearer {app.state.guests.invite()}"}  # type: ignore[attr-defined]
    assert http.get("/v1/models", headers=once).status_code == 401, "good for nothing else"
    admitted = http.post("/page/session", headers=once)
    assert http.post("/page/session", headers=once).status_code == 401
    page = {"Authorization": f"Bearer {admitted.json()['token']}"}
    assert http.get("/v1/models", headers=page).status_code == 200
    assert http.post("/page/session", headers=page).status_code == 401, "a page lets nobody in"
    assert http.post("/page/session", headers=BEARER).status_code == 401
    assert KEY not in admitted.text


@pytest.mark.parametrize(
    "host", ["x/page/session?", "x/page/session#", "x/page/session/page/session"]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/"])
def test_a_host_that_looks_like_the_address_of_a_link(
    app: object, loopback: Loopback, http: httpx.Client, host: str, path: str
) -> None:
    link = app.state.guests.invite()  # type: ignore[attr-defined]
    forged = {"Authorization": f"Bearer {link}", "Host": host}
    body = {"messages": [{"role": "user", "content": "hi"}], "image_data": ""}
    assert http.post(path, json=body, headers=forged).status_code == 401
    assert not loopback.chats
    assert app.state.guests.is_invited(link)  # type: ignore[attr-defined]


def test_401_says_where_the_key_is(http: httpx.Client) -> None:
    told = http.post("/", headers={"Authorization": "Bearer wrong"}).json()["error"]["message"]
    for word in ("internvl-modal serve", "INTERNVL_MODAL_GATEWAY_KEY", "connect NAME --show-key"):
        assert word in told


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n") if event]


@pytest.mark.parametrize("form", [True, False])
def test_an_answer_as_a_stream(loopback: Loopback, http: httpx.Client, form: bool) -> None:
    loopback.will(Reply(chunks=stream_events("A red ", "wall.", prompt_tokens=3500)))
    files = {"image": ("wall.png", picture())}
    options = {"prompt": "What is it?", "stream": "true"}
    if form:
        answer = http.post("/", files=files, data=options, headers=BEARER)
    else:
        body = {"image_data": base64.b64encode(picture()).decode(), "stream": True}
        answer = http.post("/", json=body, headers=BEARER)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, last = events(answer.text)
    assert pieces == [{"text": "A red "}, {"text": "wall."}]
    assert last["description"] == "A red wall."
    assert last["seen"] == "confirmed"
    assert last["images"][0]["grid"] == [3, 2]  # type: ignore[index]
    assert last["timings"]["first_token"] > 0  # type: ignore[index]
    assert last["cost_usd"] is None, "nobody knows the price"


def test_an_error_in_the_middle_is_the_last_event(loopback: Loopback, http: httpx.Client) -> None:
    loopback.will(Reply(chunks=stream_events("A ", prompt_tokens=20)))
    data = {"stream": "true"}
    answer = http.post("/", files={"image": picture()}, data=data, headers=BEARER)
    assert answer.status_code == 200
    told = events(answer.text)[-1]["error"]
    assert told["type"] == "ImageNotSeenError"  # type: ignore[index]
    assert 'requests_total{status="502"} 1.0' in http.get("/metrics", headers=BEARER).text


def test_an_error_before_the_first_word_has_a_status(
    loopback: Loopback, http: httpx.Client
) -> None:
    loopback.will(Reply(503))
    data = {"stream": "true"}
    assert http.post("/", files={"image": picture()}, data=data, headers=BEARER).status_code == 503
    broken = http.post("/", files={"image": b"no picture"}, data=data, headers=BEARER)
    assert broken.status_code == 422


class Planned:
    """A server whose machine was planned."""

    name = "planned"

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> Endpoint:
        backend = FixedBackend(self.url, "k", "internvl2_5-8b", "lmdeploy-0.7.3").start()
        return replace(backend, price=plan("internvl2_5-8b"))

    def stop(self) -> None:
        pass


def test_an_answer_says_what_it_cost(loopback: Loopback) -> None:
    app = create_app(AsyncClient(Planned(loopback.url)), api_key=KEY)
    with serving(app) as url:
        answer = httpx.post(url, files={"image": picture()}, headers=BEARER, timeout=60)
    best, worst = answer.json()["cost_usd"]
    assert 0 < best < worst < 0.01


def test_the_log_has_each_request_by_its_id(app: object, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "internvl_modal")
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as http:
        answer = http.post("/", files={"image": picture()}, headers=BEARER)
        http.get("/a%0Ab?secret=1", headers={**BEARER, "X-Request-ID": "mine"})
    lines = [record.message for record in caplog.records if record.name.endswith("access")]
    assert re.fullmatch(
        rf"POST / 200 in [\d.]+ s, request {answer.headers['X-Request-ID']}", lines[0]
    )
    assert re.fullmatch(r"GET /a%0Ab 404 in [\d.]+ s, request mine", lines[1])
    assert KEY not in caplog.text


def test_serve_says_what_to_open(loopback: Loopback, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "internvl_modal", "serve", "--backend", loopback.url]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        try:
            key, url, page, example = (
                server.stderr.readline().strip().partition(": " if n != 1 else " on ")[2]
                for n in range(4)
            )
            link = page.partition(" ")[0]
            assert link.startswith(f"{url}#once=")
            once = {"Authorization": f"Bearer {link.partition('=')[2]}"}
            assert httpx.post(f"{url}page/session", headers=once, timeout=60).status_code == 200
            (tmp_path / "photo.jpg").write_bytes(picture())
            done = subprocess.run(
                ["sh", "-c", f"KEY='{key}'; {example} --no-progress-meter"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            log = server.stderr.readline() + server.stderr.readline()
        finally:
            server.terminate()
    assert json.loads(done.stdout)["description"] == "A cat."
    assert "POST /page/session 200 in" in log
    assert "POST / 200 in" in log
    assert key not in log


@pytest.mark.parametrize(("host", "link"), [("0.0.0.0", "localhost"), ("localhost", "localhost")])
def test_the_link_of_serve_can_be_opened(loopback: Loopback, host: str, link: str) -> None:
    command = [sys.executable, "-m", "internvl_modal", "serve", "--backend", loopback.url]
    command += ["--host", host, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        try:
            lines = [server.stderr.readline() for _ in range(3)]
        finally:
            server.terminate()
    assert f"listening on http://{host}:" in lines[1]
    assert lines[2].startswith(f"page: http://{link}:")


def test_the_examples_of_the_reference_run(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture())
    page = http.get("/docs", headers=BEARER).text
    examples = [html.unescape(one) for one in re.findall(r"<code>(curl .*?)</code>", page, re.S)]
    assert len(examples) == 6
    environment = {**os.environ, "KEY": KEY, "URL": str(http.base_url).rstrip("/")}
    for example in examples:
        command = ["sh", "-c", f"{example} --fail --silent --show-error --noproxy '*'"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{example}\n{done.stderr}"
        assert "A cat." in done.stdout or "-F" not in example


def test_the_wheel_holds_the_page(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", str(tmp_path)]
    subprocess.run([*command, str(root)], check=True, capture_output=True, timeout=250)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    folder = root / "internvl_modal" / "gateway" / "page"
    for file in (*folder.glob("*.html"), *folder.glob("*.js"), *folder.glob("*.css")):
        assert f"internvl_modal/gateway/page/{file.name}" in names
