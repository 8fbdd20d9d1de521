"""The tiles that the client expects are those that vLLM cuts, and pays for in tokens."""

from __future__ import annotations

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.vllm.between import START, turn
from tests.vllm.server import Server, content
from tests.vllm.tiny_model import count

SIZES = [
    *((1, 1), (28, 28), (100, 75), (448, 448), (449, 448), (500, 500), (900, 900)),
    *((896, 448), (448, 896), (897, 448), (672, 448), (1344, 448), (1344, 896), (1344, 1344)),
    *((640, 480), (480, 640), (640, 488), (800, 600), (1280, 720), (1920, 1080), (1080, 1920)),
    *((1000, 333), (333, 1000), (3000, 400), (400, 3000), (2000, 1000), (123, 457)),
    *((5376, 448), (448, 5376), (4000, 3000)),
]
SYSTEM, PROMPT = "Be brief.", "What is this?"
AROUND = count(turn("system", SYSTEM) + turn("user", f"\n{PROMPT}") + f"{START}assistant\n")
"""Tokens of the prompt that are no picture's."""


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, "red")


def tokens_of(tiles: int) -> int:
    """256 a tile, between ``<img>`` and ``</img>``."""
    return 256 * tiles + 2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_picture_costs_what_is_expected(
    vllm: Server, client: ivl.Client, size: tuple[int, int]
) -> None:
    answer = client.describe(picture(size), PROMPT, system=SYSTEM, max_tokens=8)
    (info,) = answer.images
    assert answer.usage.prompt_tokens == AROUND + tokens_of(info.tiles)
    assert info.tokens == 256 * info.tiles
    assert answer.seen == ("confirmed" if info.tiles > 1 else "unverifiable")
    assert client.estimate(picture(size)).tiles == info.tiles
    assert usage_of_a_plain_request(vllm, picture(size)) == answer.usage.prompt_tokens


def usage_of_a_plain_request(server: Server, image: Image.Image) -> int:
    """What the picture costs when it is sent as it is, without our client."""
    asked = {"role": "user", "content": content(image, PROMPT)}
    messages = [{"role": "system", "content": SYSTEM}, asked]
    usage: int = server.post(messages=messages).json()["usage"]["prompt_tokens"]
    return usage


def test_several_pictures_cost_their_sum(client: ivl.Client) -> None:
    pictures = [picture(size) for size in ((640, 480), (100, 100), (896, 448))]
    answer = client.describe(pictures, PROMPT, system=SYSTEM, max_tokens=8)
    tiles = [info.tiles for info in answer.images]
    assert tiles == [13, 1, 3]
    fewer = client.describe(pictures[:2], PROMPT, system=SYSTEM, max_tokens=8)
    label = answer.usage.prompt_tokens - fewer.usage.prompt_tokens - tokens_of(3)
    assert 0 < label < 16


@pytest.mark.parametrize("detail", ["high", 24])
def test_more_tiles_than_the_server_allows_are_said_to_be_none(
    client: ivl.Client, detail: str | int
) -> None:
    answer = client.describe(picture((4000, 3000)), PROMPT, detail=detail, max_tokens=8)
    assert answer.images[0].tiles == 13
    assert any("12" in warning and "detail" in warning for warning in answer.warnings)
