"""What vLLM does with requests that the client relies on or protects from."""

from __future__ import annotations

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.vllm.between import saying, through
from tests.vllm.server import MODEL, Server, content

PICTURE = Image.new("RGB", (2700, 1800), "red")
LARGE = Image.new("RGB", (4000, 3000), "red")
DETAILS = [
    ((2700, 1800), 1, 1),
    ((2700, 1800), 6, 7),
    ((640, 480), 6, 7),
    ((640, 480), "low", 7),
    ((896, 448), 2, 3),
    ((100, 75), 1, 1),
]
MORE = [((2700, 1800), 24, 25), ((2700, 1800), "high", 25)]


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


@pytest.mark.parametrize(("size", "detail", "tiles"), DETAILS + MORE)
def test_tiles_by_request(
    trusting: Server, size: tuple[int, int], detail: int | str, tiles: int
) -> None:
    between = saying("A picture.")
    with through(trusting, between) as client:
        answer = client.describe(Image.new("RGB", size, "red"), detail=detail)  # type: ignore[arg-type]
    assert answer.images[0].tiles == tiles
    assert f"<{tiles} tiles>" in between.prompt
    assert answer.seen == ("confirmed" if tiles > 1 else "unverifiable")
    assert answer.warnings == ()


@pytest.mark.parametrize(("size", "detail", "tiles"), DETAILS)
def test_tiles_by_request_where_the_server_does_not_let_it_choose(
    vllm: Server, size: tuple[int, int], detail: int | str, tiles: int
) -> None:
    """The picture is sent in a shape that becomes no more tiles."""
    between = saying("A picture.")
    with through(vllm, between) as client:
        answer = client.describe(Image.new("RGB", size, "red"), detail=detail)  # type: ignore[arg-type]
    (info,) = answer.images
    assert info.tiles == tiles
    assert f"<{tiles} tiles>" in between.prompt
    assert answer.warnings == ()
    assert info.sent_width <= size[0]
    assert info.sent_height <= size[1]


def test_whether_a_request_may_choose_is_found_out_once(vllm: Server, trusting: Server) -> None:
    for server, refused in ((vllm, 1), (trusting, 0)):
        between = saying("A picture.")
        with through(server, between) as client:
            tiles = [client.describe(LARGE, detail=6).images[0].tiles for _ in range(3)]
        assert tiles == [7, 7, 7]
        codes = [answer.status_code for answer in between.answers]
        assert codes.count(400) <= refused
        chosen = [asked.get("mm_processor_kwargs") for asked in between.asked[-2:]]
        assert chosen == [None if refused else {"max_dynamic_patch": 6}] * 2


@pytest.mark.parametrize("pictures", [2, 3])
def test_a_limit_holds_for_every_picture_of_a_request(trusting: Server, pictures: int) -> None:
    between = saying("Pictures.")
    with through(trusting, between) as client:
        answer = client.describe([LARGE] * pictures, detail=1)
    assert [info.tiles for info in answer.images] == [1] * pictures
    assert between.prompt.count("<1 tiles>") == pictures
