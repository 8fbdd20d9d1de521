"""The gateway over HTTP, in front of a server on loopback."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from internvl_modal.client.aio import AsyncClient
from internvl_modal.deployment.served_app import FixedBackend
from internvl_modal.errors import ConfigError
from internvl_modal.gateway import create_app
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.transport.retry import Retry
from tests.asgi import serving
from tests.loopback import Loopback, Reply, completion

KEY = "gateway-test-key"
BEARER = {"Authorization": f"Bearer {KEY}"}


def picture(width: int = 300, height: int = 200) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def noise(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = base64.b64encode(picture()).decode()


@pytest.fixture
def gateway(loopback: Loopback) -> Iterator[httpx.Client]:
    backend = FixedBackend(loopback.url, "upstream-key", "internvl2_5-78b", "lmdeploy-0.7.3")
    client = AsyncClient(backend, retry=Retry(attempts=1))
    app = create_app(client, api_key=KEY, max_body=1_000_000)
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as http:
        yield http


@pytest.mark.parametrize("package", ["fastapi", "prometheus_client"])
def test_without_the_extra(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from internvl_modal.errors import MissingExtraError\n"
        "try:\n    import internvl_modal.gateway\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert package in told.stdout
    assert "pip install 'internvl-modal[gateway]'" in told.stdout


def test_json_as_the_old_users_send_it(loopback: Loopback, gateway: httpx.Client) -> None:
    answer = gateway.post("/", json={"image_data": PICTURE}, headers=BEARER)
    assert answer.status_code == 200
    assert answer.json()["description"] == "A cat."
    assert loopback.chats[-1].headers["authorization"] == "Bearer upstream-key"


def test_options_reach_the_model(loopback: Loopback, gateway: httpx.Client) -> None:
    body = {
        "image_data": f"data:image/png;base64,{PICTURE}",
        "prompt": "What colour?",
        "detail": 1,
        "max_tokens": 7,
        "temperature": 0.5,
    }
    answer = gateway.post("/", json=body, headers=BEARER)
    assert answer.status_code == 200
    sent = loopback.chats[-1].json
    assert (sent["max_tokens"], sent["temperature"]) == (7, 0.5)
    assert "What colour?" in str(sent["messages"])


def test_multipart_upload(loopback: Loopback, gateway: httpx.Client) -> None:
    form = {"prompt": "What colour?", "detail": "low", "max_tokens": "9"}
    answer = gateway.post("/", files={"image": picture()}, data=form, headers=BEARER)
    assert answer.json()["description"] == "A cat."
    assert loopback.chats[-1].json["max_tokens"] == 9


def test_a_form_with_two_pictures(gateway: httpx.Client) -> None:
    form = {"image_data": PICTURE}
    answer = gateway.post("/", files={"image": picture()}, data=form, headers=BEARER)
    assert (answer.status_code, "send one" in answer.text) == (422, True)


def test_a_form_with_a_field_twice(loopback: Loopback, gateway: httpx.Client) -> None:
    form = {"detail": ["low", "high"]}
    answer = gateway.post("/", files={"image": picture()}, data=form, headers=BEARER)
    assert (answer.status_code, "twice" in answer.text) == (422, True)
    assert not loopback.heard


def test_a_large_picture_as_a_field_of_a_form(loopback: Loopback) -> None:
    data = base64.b64encode(noise(1000, 800)).decode()
    assert len(data) > 2**20, "more than Starlette takes by default"
    app = create_app(
        AsyncClient(FixedBackend(loopback.url, "k", "internvl2_5-78b", "lmdeploy-0.7.3")),
        api_key=KEY,
    )
    with serving(app) as url:
        form = {"image_data": (None, data), "detail": (None, "1")}
        answer = httpx.post(url, files=form, headers=BEARER, timeout=60)
    assert answer.json()["description"] == "A cat."


@pytest.mark.parametrize(
    "files",
    [
        [("image", picture()), ("image", picture())],
        [("image", picture()), *((f"field{n}", (None, "x")) for n in range(9))],
    ],
)
def test_a_form_with_too_much(gateway: httpx.Client, files: Any) -> None:
    answer = gateway.post("/", files=files, headers=BEARER)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Too many")


@pytest.mark.parametrize("detail", ["huge", "99", "\N{SUPERSCRIPT TWO}"])
def test_a_form_with_a_wrong_detail(gateway: httpx.Client, detail: str) -> None:
    form = {"detail": detail}
    answer = gateway.post("/", files={"image": picture()}, data=form, headers=BEARER)
    assert answer.status_code == 422
    assert "detail" in answer.json()["error"]["message"]


def test_a_large_picture_is_shrunk_before_it_is_sent(
    loopback: Loopback, gateway: httpx.Client
) -> None:
    files = {"image": picture(6000, 4000)}
    gateway.post("/", files=files, data={"detail": "1"}, headers=BEARER)
    content = loopback.chats[-1].json["messages"][-1]["content"]
    url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert sent.width < 1000


@pytest.mark.parametrize(
    "shown",
    [
        b"",
        b"Bearer wrong",
        b"Bearer",
        b"Bearer \xe9",
        b"Basic",
        b"Basic !",
        b"Basic \xe9",
        b"Basic " + base64.b64encode(b"user"),
        b"Basic " + base64.b64encode(b"user:\xe9"),
        b"TokenKEY",
    ],
)
def test_without_the_key_nothing_is_asked(
    loopback: Loopback, gateway: httpx.Client, shown: bytes
) -> None:
    shown = shown.replace(b"KEY", KEY.encode())
    answer = gateway.post("/", json={"image_data": PICTURE}, headers={b"Authorization": shown})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.json()["error"]["request_id"]
    assert KEY not in answer.text
    assert not loopback.heard


@pytest.mark.parametrize("key", ["", " \n"])
def test_a_gateway_without_a_key_is_not_made(loopback: Loopback, key: str) -> None:
    with pytest.raises(ConfigError, match="the gateway's key is empty"):
        create_app(AsyncClient(loopback.url), api_key=key)


def test_white_space_around_the_key_locks_nobody_out(loopback: Loopback) -> None:
    with serving(create_app(AsyncClient(loopback.url), api_key=f" {KEY}\n")) as url:
        assert httpx.get(f"{url}/metrics", headers=BEARER, timeout=60).status_code == 200


@pytest.mark.parametrize("user", [b"any", b"", "jürgen".encode(), "jürgen".encode("latin-1")])
def test_the_key_as_a_password(gateway: httpx.Client, user: bytes) -> None:
    answer = gateway.post("/", json={"image_data": PICTURE}, auth=(user, KEY))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "image_data"),
        ({"image_data": "***"}, "not base64"),
        ({"image_data": base64.b64encode(b"<svg/>").decode()}, "SVG"),
        ({"image_data": base64.b64encode(picture()[:-40]).decode()}, "bytes"),
        ({"image_data": PICTURE, "temperature": 9}, "temperature"),
        ({"image_data": PICTURE, "detail": 99}, "detail"),
        ({"image_data": PICTURE, "promt": "x"}, "promt"),
    ],
)
def test_what_is_wrong_is_named_and_the_model_not_asked(
    loopback: Loopback, gateway: httpx.Client, body: dict[str, Any], reason: str
) -> None:
    answer = gateway.post("/", json=body, headers=BEARER)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]["message"]
    assert not loopback.heard


HOW = "(send JSON with image_data, or a multipart form with a file named image)"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"files": {"file": picture()}}, f"image_data is missing {HOW}"),
        ({"json": {}}, f"image_data is missing {HOW}"),
        ({"content": picture()}, "Invalid JSON: "),
        ({"content": picture()}, HOW),
        ({"json": {"image_data": "https://host/a.jpg"}}, "POST /v1/chat/completions fetches URLs"),
    ],
)
def test_a_picture_sent_in_another_way(
    loopback: Loopback, gateway: httpx.Client, sent: Any, told: str
) -> None:
    answer = gateway.post("/", **sent, headers=BEARER)
    assert answer.status_code == 422
    assert told in answer.json()["error"]["message"]
    assert "x89" not in answer.text
    assert not loopback.heard


def test_a_picture_whose_decoder_is_missing(
    loopback: Loopback, gateway: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pillow_heif", "pillow_heif.as_plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    answer = gateway.post("/", files={"image": heic}, headers=BEARER)
    assert answer.status_code == 422
    assert "pillow-heif" in answer.json()["error"]["message"]
    assert "pip install" not in answer.json()["error"]["message"], "the caller cannot"
    assert not loopback.heard


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/", 405), ("PUT", "/v1/models", 405)],
)
def test_errors_have_one_form(gateway: httpx.Client, method: str, path: str, status: int) -> None:
    answer = gateway.request(method, path, headers={**BEARER, "Accept": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code", "request_id"}
    assert error["request_id"] == answer.headers["X-Request-ID"]


class Failing:
    """A backend that fails as nobody expects."""

    name = "failing"

    def start(self) -> Endpoint:
        raise RuntimeError("a secret detail")

    def stop(self) -> None:
        pass


def test_an_error_that_nobody_expected(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(create_app(AsyncClient(Failing()), api_key=KEY)) as url:
        answer = httpx.post(url, json={"image_data": PICTURE}, headers=BEARER, timeout=60)
        metrics = httpx.get(f"{url}/metrics", headers=BEARER, timeout=60).text
    assert answer.status_code == 500
    assert answer.json()["error"]["request_id"] == answer.headers["X-Request-ID"]
    assert "a secret detail" not in answer.text
    assert "a secret detail" in capfd.readouterr().err, "the log has it"
    assert 'internvl_gateway_requests_total{status="500"} 1.0' in metrics


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"image_data": PICTURE}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello."}]}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Hello."}], "stream": True},
        ),
    ],
)
def test_what_is_wrong_with_the_gateways_own_client_is_not_the_callers(
    loopback: Loopback, capfd: pytest.CaptureFixture[str], path: str, body: dict[str, Any]
) -> None:
    client = AsyncClient(
        FixedBackend(loopback.url, "upstream-key", "internvl2_5-78b", "lmdeploy-0.7.3")
    )
    asyncio.run(client.aclose())
    with serving(create_app(client, api_key=KEY)) as url:
        answer = httpx.post(f"{url}{path}", json=body, headers=BEARER, timeout=60)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the gateway failed; its log says why"
    assert answer.headers["X-Should-Retry"] == "false"
    assert "the client is closed" in capfd.readouterr().err, "the log has it"


def test_a_caller_who_leaves_is_no_failure_of_the_gateway(gateway: httpx.Client) -> None:
    url = gateway.base_url
    with socket.create_connection((url.host, url.port)) as caller:
        caller.sendall(
            f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 1000\r\n\r\nthe beginning".encode()
        )
    counted = ""
    while "requests_total{" not in counted:
        counted = gateway.get("/metrics", headers=BEARER).text
    assert 'internvl_gateway_requests_total{status="400"} 1.0' in counted


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit(gateway: httpx.Client, chunked: bool) -> None:
    body = b"x" * 1_100_000
    content = iter([body[:600_000], body[600_000:]]) if chunked else body
    answer = gateway.post("/", content=content, headers=BEARER)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        ((503, {"Retry-After": "7"}), 503, "7"),
        ((502, {}), 503, "30"),
        ((429, {"Retry-After": "3"}), 429, "3"),
        ((401, {}), 502, None),
        ((500, {}), 502, "30"),
        ((404, {}), 502, None),
        ((400, {}), 422, None),
        ((413, {}), 422, None),
    ],
)
def test_the_servers_failures(
    loopback: Loopback,
    gateway: httpx.Client,
    failure: tuple[int, dict[str, str]],
    status: int,
    retry_after: str | None,
) -> None:
    loopback.will(Reply(failure[0], {"message": "no"}, failure[1]))
    answer = gateway.post("/", json={"image_data": PICTURE}, headers=BEARER)
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == retry_after
    assert "upstream-key" not in answer.text


def test_a_picture_the_model_did_not_see_is_no_description(
    loopback: Loopback, gateway: httpx.Client
) -> None:
    loopback.will(Reply(body=completion(prompt_tokens=20)))
    answer = gateway.post("/", json={"image_data": PICTURE}, headers=BEARER)
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "ImageNotSeenError"


def test_whoever_runs_the_gateway_is_told_what_helps(
    loopback: Loopback, gateway: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    loopback.will(Reply(401, {"message": "no"}))
    answer = gateway.post("/", json={"image_data": PICTURE}, headers=BEARER)
    assert answer.json()["error"]["message"] == "the server answered 401: no"
    (record,) = [record for record in caplog.records if "answered 401" in record.message]
    assert "INTERNVL_MODAL_API_KEY" in record.message
    assert answer.headers["X-Request-ID"] in record.message


def test_request_ids(loopback: Loopback, gateway: httpx.Client) -> None:
    mine = gateway.get("/health", headers={"X-Request-ID": "abc"})
    assert mine.headers["X-Request-ID"] == "abc"
    failed = gateway.post("/", json={}, headers=BEARER)
    assert failed.json()["error"]["request_id"] == failed.headers["X-Request-ID"] != "abc"


def test_health_needs_no_key_and_wakes_nobody(loopback: Loopback, gateway: httpx.Client) -> None:
    assert gateway.get("/health").json() == {"status": "ok"}
    assert not loopback.heard


@pytest.mark.parametrize("page", ["/docs", "/openapi.json"])
def test_the_docs_ask_for_the_key_as_browsers_do(
    loopback: Loopback, gateway: httpx.Client, page: str
) -> None:
    refused = gateway.get(page)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert gateway.get(page, auth=("", KEY)).status_code == 200
    assert gateway.get(page, headers=BEARER).status_code == 200
    assert not loopback.heard


@pytest.mark.parametrize("path", ["/health/", "/docs/", "/v1/models/x/", "/metrics/"])
def test_nobody_is_sent_to_the_host_that_they_name(gateway: httpx.Client, path: str) -> None:
    answer = gateway.get(path, headers={**BEARER, "Host": "evil.test"})
    assert answer.status_code == 404
    assert "location" not in answer.headers


def test_the_docs_can_be_tried_out(gateway: httpx.Client) -> None:
    document = gateway.get("/openapi.json", headers=BEARER).json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["scheme"] for scheme in schemes.values()} == {"bearer", "basic"}
    for path, method in [("/", "post"), ("/v1/chat/completions", "post"), ("/v1/models", "get")]:
        assert {name for way in document["paths"][path][method]["security"] for name in way} == {
            *schemes
        }
    content = document["paths"]["/"]["post"]["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]["properties"]
    assert form["image"]["format"] == "binary"
    assert form.keys() - {"image"} == content["application/json"]["schema"]["properties"].keys() - {
        "image_data"
    }
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_metrics_count_answers_and_need_the_key(loopback: Loopback, gateway: httpx.Client) -> None:
    assert gateway.get("/metrics").status_code == 401
    gateway.post("/", json={"image_data": PICTURE}, headers=BEARER)
    text = gateway.get("/metrics", headers=BEARER).text
    assert 'internvl_gateway_requests_total{status="200"}' in text
    assert "internvl_gateway_seconds_bucket" in text


def test_in_front_of_the_local_engine() -> None:
    scene = Image.new("RGB", (480, 480), "white")
    ImageDraw.Draw(scene).ellipse((170, 170, 310, 310), fill="red")
    file = io.BytesIO()
    scene.save(file, "PNG")
    app = create_app(AsyncClient("local", model="demo"), api_key=KEY)
    with serving(app) as url:
        files = {"image": file.getvalue()}
        answer = httpx.post(url, files=files, headers=BEARER, timeout=60).json()
    assert "red circle" in answer["description"]
    assert answer["warnings"]
