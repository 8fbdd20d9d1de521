"""What vLLM does with requests that the client relies on or protects from."""

from __future__ import annotations

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.vllm.server import MODEL, Server, content

PICTURE = Image.new("RGB", (2700, 1800), "red")


def tokens(server: Server, **fields: object) -> int:
    """What the picture costs with a plain request that has these fields besides."""
    reply = server.post(messages=[{"role": "user", "content": content(PICTURE, "?")}], **fields)
    usage: dict[str, int] = reply.raise_for_status().json()["usage"]
    return usage["prompt_tokens"]


@pytest.mark.parametrize(("most", "tiles"), [(1, 1), (6, 7), (24, 25)])
def test_a_trusting_server_lets_a_request_choose_its_tiles(
    trusting: Server, most: int, tiles: int
) -> None:
    usual = tokens(trusting)
    chosen = tokens(trusting, mm_processor_kwargs={"max_dynamic_patch": most})
    assert chosen - usual == 256 * (tiles - 7)


def test_a_trusting_server_refuses_a_picture_beyond_its_encoder(trusting: Server) -> None:
    """37 tiles; 13, the most of the server's own limit, always fit."""
    picture = content(Image.new("RGB", (2240, 2240), "red"), "?")
    messages = [{"role": "user", "content": picture}]
    reply = trusting.post(messages=messages, mm_processor_kwargs={"max_dynamic_patch": 40})
    assert reply.status_code == 400
    assert "exceeds the pre-allocated encoder cache size 8192" in reply.text


def test_another_server_refuses_and_says_to_which_parameter(vllm: Server) -> None:
    messages = [{"role": "user", "content": content(PICTURE, "?")}]
    reply = vllm.post(messages=messages, mm_processor_kwargs={"max_dynamic_patch": 6})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "mm_processor_kwargs"


@pytest.mark.parametrize("key", ["wrong", None])
def test_a_wrong_key(trusting: Server, key: str | None) -> None:
    with ivl.Client(base_url=trusting.url, api_key=key, model=MODEL) as client:
        for ask in (client.models, lambda: client.describe(PICTURE)):
            with pytest.raises(ivl.AuthenticationError):
                ask()


def test_the_right_key(trusting: Server) -> None:
    with ivl.Client(base_url=trusting.url, api_key=trusting.key) as client:
        assert client.models() == [MODEL]
        assert client.describe(PICTURE, max_tokens=4).images[0].tiles == 7


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_with_or_without_v1(vllm: Server, end: str) -> None:
    with ivl.Client(base_url=vllm.url.removesuffix("/v1") + end) as client:
        assert client.models() == [MODEL]
