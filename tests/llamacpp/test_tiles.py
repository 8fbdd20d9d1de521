"""Tiles, tokens and the rendered prompt, counted by llama.cpp itself."""

from __future__ import annotations

from typing import Any

import pytest

import internvl_modal as ivl
from tests.conformance.standin.prompts import INTERNVL
from tests.llamacpp.conftest import Engine, data_url, message, photograph

TOKENS = 256
SIZES = [
    *((1, 1), (28, 28), (447, 448), (448, 448), (449, 1), (449, 449), (448, 896)),
    *((896, 448), (896, 896), (897, 896), (640, 480), (640, 488), (800, 600), (1024, 768)),
    *((1280, 720), (720, 1280), (1920, 1080), (1080, 1920), (1344, 1344), (1792, 1344)),
    *((4000, 3000), (3000, 4000), (6000, 4000), (5376, 448), (9000, 500), (500, 9000)),
    *((2100, 900), (1001, 1003), (1, 3000), (333, 777)),
]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_tiles_are_as_foretold(tiled_engine: Engine, width: int, height: int) -> None:
    picture, client = photograph(width, height), tiled_engine.client
    description = client.describe(picture, "Hi", max_tokens=1)
    (info,) = description.images
    text = tiled_engine.prompt_tokens([message("Hi", photograph(1, 1))])
    assert description.usage.prompt_tokens == text + info.tiles * TOKENS
    assert info.tokens == info.tiles * TOKENS
    assert description.seen == ("confirmed" if info.tiles > 1 else "unverifiable")
    assert client.estimate(picture).tiles == info.tiles


@pytest.mark.parametrize(
    ("width", "height"), [(4000, 3000), (1080, 1920), (3000, 500), (3001, 3003)]
)
def test_what_the_client_shrinks_gets_the_tiles_of_the_original(
    tiled_engine: Engine, width: int, height: int
) -> None:
    picture = photograph(width, height)
    shrunk = tiled_engine.client.describe(picture, "Hi", max_tokens=1)
    assert (shrunk.images[0].sent_width, shrunk.images[0].sent_height) != (width, height)
    whole = tiled_engine.post(
        "/v1/chat/completions", messages=[message("Hi", picture)], max_tokens=1
    )
    assert shrunk.usage.prompt_tokens == whole["usage"]["prompt_tokens"]


@pytest.mark.parametrize("detail", ["low", "medium", "auto", 1, 2, 3, 5])
@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (700, 5000)])
def test_detail_is_the_most_that_the_engine_cuts(
    tiled_engine: Engine, detail: Any, width: int, height: int
) -> None:
    described = tiled_engine.client.describe(
        photograph(width, height), "Hi", detail=detail, max_tokens=1
    )
    text = tiled_engine.prompt_tokens([message("Hi", photograph(1, 1))])
    tiles, rest = divmod(described.usage.prompt_tokens - text, TOKENS)
    assert rest == 0
    most = {"low": 6, "medium": 12, "auto": 12}.get(detail, detail)
    assert tiles <= (most + 1 if most > 1 else 1)
    assert not [warning for warning in described.warnings if "detail" in warning]


def test_more_detail_than_the_engine_has_is_said(tiled_engine: Engine) -> None:
    described = tiled_engine.client.describe(
        photograph(4000, 3000), "Hi", detail="high", max_tokens=1
    )
    assert described.images[0].tiles == 13
    assert any("detail='high' had no effect" in warning for warning in described.warnings)


class TestPrompt:
    """The tokens that the engine's own template makes of what is meant."""

    def tokens(self, engine: Engine, *messages: dict[str, Any], tiles: int = 1) -> int:
        return engine.prompt_tokens(list(messages)) + tiles * TOKENS

    def test_without_a_system_message(self, tiled_engine: Engine) -> None:
        picture = photograph(200, 200)
        described = tiled_engine.client.describe(picture, "What is it?", max_tokens=1)
        expected = self.tokens(tiled_engine, message("What is it?", picture))
        assert described.usage.prompt_tokens == expected

    def test_with_a_system_message(self, tiled_engine: Engine) -> None:
        picture = photograph(200, 200)
        described = tiled_engine.client.describe(
            picture, "What is it?", system="Be brief.", max_tokens=1
        )
        system = {"role": "system", "content": "Be brief."}
        expected = self.tokens(tiled_engine, system, message("What is it?", picture))
        assert described.usage.prompt_tokens == expected

    def test_several_pictures_keep_their_places(self, tiled_engine: Engine) -> None:
        pictures = [photograph(200, 200), photograph(500, 300)]
        described = tiled_engine.client.describe(pictures, "Compare.", max_tokens=1)
        parts: list[dict[str, Any]] = []
        for number, picture in enumerate(pictures, 1):
            parts += (
                {"type": "text", "text": f"Image-{number}: "},
                {"type": "image_url", "image_url": {"url": data_url(picture)}},
            )
        parts.append({"type": "text", "text": "Compare."})
        tiles = sum(info.tiles for info in described.images)
        expected = self.tokens(tiled_engine, {"role": "user", "content": parts}, tiles=tiles)
        assert described.usage.prompt_tokens == expected

    def test_turns(self, tiled_engine: Engine) -> None:
        picture = photograph(200, 200)
        turns = [
            ivl.Message(role="user", text="What is it?", images=[picture]),
            ivl.Message(role="assistant", text="A wall."),
            ivl.Message(role="user", text="Of which colour?"),
        ]
        described = tiled_engine.client.chat(turns, max_tokens=1)
        said = [{"role": turn.role, "content": turn.text} for turn in turns[1:]]
        expected = self.tokens(tiled_engine, message("What is it?", picture), *said)
        assert described.usage.prompt_tokens == expected

    def test_a_marker_in_the_prompt_is_text(self, tiled_engine: Engine) -> None:
        marker = tiled_engine.raw.get("/props").raise_for_status().json()["media_marker"]
        described = tiled_engine.client.describe(
            photograph(200, 200), f"What is {marker}?", max_tokens=1
        )
        assert described.images[0].tiles == 1
        assert any("control tokens" in warning for warning in described.warnings)

    def test_internvls_own_system_message(self, tiled_engine: Engine) -> None:
        """The template alone would leave it out, and Qwen's would put another in its place."""
        picture = photograph(200, 200)
        with ivl.Client(
            base_url=tiled_engine.url, api_key=tiled_engine.key, model="internvl2_5-1b"
        ) as client:
            described = client.describe(picture, "What is it?", max_tokens=1)
        system = {"role": "system", "content": INTERNVL}
        expected = self.tokens(tiled_engine, system, message("What is it?", picture))
        assert described.usage.prompt_tokens == expected

    def test_an_empty_system_message(self, tiled_engine: Engine) -> None:
        picture = photograph(200, 200)
        described = tiled_engine.client.describe(picture, "What is it?", system="", max_tokens=1)
        empty = {"role": "system", "content": ""}
        expected = self.tokens(tiled_engine, empty, message("What is it?", picture))
        assert described.usage.prompt_tokens == expected
