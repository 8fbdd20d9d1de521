"""What clients of llama.cpp are promised and do not have yet."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, WithJsonSchema

import internvl_modal as ivl
from tests.llamacpp.conftest import Engine, connections, message, photograph, scene

OFFICIAL = "书生·万象"


def test_known_families_get_their_system_message(tiled_engine: Engine) -> None:
    """The template alone would leave it out, and Qwen's would put another in its place."""
    with ivl.Client(
        base_url=tiled_engine.url, api_key=tiled_engine.key, model="internvl2_5-1b"
    ) as client:
        picture = photograph(200, 200)
        described = client.describe(picture, "What is it?", max_tokens=1)
        bare = tiled_engine.prompt_tokens([message("What is it?", picture)]) + 256
        assert described.usage.prompt_tokens > bare + len(OFFICIAL.encode())


def test_an_empty_system_message_is_sent(tiled_engine: Engine) -> None:
    picture = photograph(200, 200)
    described = tiled_engine.client.describe(picture, "What is it?", system="", max_tokens=1)
    empty = {"role": "system", "content": ""}
    expected = tiled_engine.prompt_tokens([empty, message("What is it?", picture)]) + 256
    assert described.usage.prompt_tokens == expected


def test_no_text_is_no_description(demo_engine: Engine) -> None:
    with pytest.raises(ivl.EngineError) as caught:
        demo_engine.client.describe(scene(), stop="A")
    assert type(caught.value).__name__ == "EmptyAnswerError"


def test_a_refused_schema_is_asked_for_without_it(tiled_engine: Engine) -> None:
    """llama.cpp says 400 to a reference into another document."""

    class Plate(BaseModel):
        number: Annotated[str, WithJsonSchema({"$ref": "https://example.com/plate.json"})]

    with pytest.raises(ivl.OutputInvalidError):  # asked as plain text, random weights write noise
        tiled_engine.client.extract(photograph(200, 200), Plate, repairs=0, max_tokens=8)


def test_an_endpoint_that_is_llama_cpp_keeps_no_thread_of_it(tiled_engine: Engine) -> None:
    """As the local backend does: whoever started it, the threads are few."""
    with ivl.Client(base_url=tiled_engine.url, api_key=tiled_engine.key) as client:
        before = connections(tiled_engine.url)
        client.describe(photograph(100, 100), max_tokens=1)
        assert connections(tiled_engine.url) == before
