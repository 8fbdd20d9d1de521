"""What LMDeploy 0.18 needs of the client beyond 0.7.3."""

from __future__ import annotations

import pytest
from PIL import Image
from pydantic import BaseModel, Field

import internvl_modal as ivl
from tests.conformance.environment import NEW
from tests.conformance.serving import Front, Servers
from tests.conformance.standin.prompts import INTERNVL

PICTURE = Image.new("RGB", (896, 448), "red")
LARGE = Image.new("RGB", (4000, 3000), "red")


def ask(front: Front, pictures: list[Image.Image], streamed: bool) -> ivl.Description:
    if not streamed:
        return front.client.describe(pictures)
    stream = front.client.stream(pictures)
    list(stream)
    return stream.description


class Colour(BaseModel):
    name: str


class Code(BaseModel):
    value: str = Field(pattern=r"^\bred\b$")


@pytest.mark.parametrize(
    "repository", ["InternVL3-8B-first", "InternVL3_5-8B", "InternVL3_5-8B-HF"]
)
def test_the_official_system_message_is_sent(servers: Servers, repository: str) -> None:
    """The template's own is Qwen's, or there is none."""
    front = servers.get(NEW, repository)
    front.client.describe(PICTURE, "What is this?")
    assert front.seen().turns[0] == ("system", INTERNVL)


def test_an_empty_system_message_is_none(lmdeploy: Front) -> None:
    """The template would insert its own."""
    lmdeploy.client.describe(PICTURE, "What is this?", system="")
    (first, *_) = lmdeploy.seen().turns
    assert first == ("system", "")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_text_that_the_engine_aborted_is_kept(new: Front, streamed: bool) -> None:
    new.next(text="A picture.", fail_after=4, fail_status=8)
    answer = ask(new, [PICTURE], streamed)
    assert answer.text == "A pi"
    assert any("abort" in warning for warning in answer.warnings)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "behaviour", [{"text": ""}, {"fail_after": 0, "fail_status": 8}], ids=["stop", "abort"]
)
def test_no_text_is_no_description(
    new: Front, behaviour: dict[str, object], streamed: bool
) -> None:
    new.next(**behaviour)
    with pytest.raises(ivl.EmptyAnswerError):
        ask(new, [PICTURE], streamed)


def test_reasoning_is_not_the_text(lmdeploy: Front) -> None:
    lmdeploy.next(text="<think>It is red.</think>A red picture.")
    answer = lmdeploy.client.describe(PICTURE)
    assert (answer.text, answer.reasoning) == ("A red picture.", "It is red.")


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        (1, ivl.ServerUnavailableError, 503),
        (5, ivl.EngineError, 500),
        (6, ivl.ContextLengthError, 400),
    ],
)
def test_an_error_in_a_stream_is_its_code(
    new: Front, status: int, expected: type[ivl.ServerError], code: int
) -> None:
    """``data: {"error": {..., "code": code}}`` after four tokens."""
    new.next(text="A picture.", fail_after=4, fail_status=status, one_by_one=True)
    with pytest.raises(expected) as caught:
        ask(new, [PICTURE], streamed=True)
    assert caught.value.status == code
    assert caught.value.text == "A pi"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_full_context_says_both_numbers(new: Front, streamed: bool) -> None:
    with pytest.raises(ivl.ContextLengthError) as caught:
        ask(new, [LARGE] * 3, streamed)
    assert caught.value.needed is not None
    assert 3 * 3328 < caught.value.needed < 3 * 3328 + 1000
    assert caught.value.available == 8192


def test_extract_uses_the_servers_own_structured_output(new: Front) -> None:
    new.next(text='{"name": "red"}')
    assert new.client.extract(PICTURE, Colour) == Colour(name="red")
    schema = new.seen().response_format
    assert schema is not None
    assert schema["type"] == "json_schema"
    assert "name" in schema["json_schema"]["schema"]["properties"]


def test_extract_asks_again_without_a_schema_that_is_refused(new: Front) -> None:
    """LMDeploy's grammar knows no word boundaries: 400."""
    new.next(text='{"value": "red"}')
    assert new.client.extract(PICTURE, Code) == Code(value="red")
    assert new.seen().response_format is None


@pytest.mark.parametrize("size", [(4000, 3000), (640, 480), (1344, 1344)])
@pytest.mark.parametrize(("detail", "most"), [("low", 7), (4, 5), (2, 3), (1, 1)])
def test_detail_holds_where_the_server_ignores_it(
    servers: Servers, size: tuple[int, int], detail: str | int, most: int
) -> None:
    """``-HF`` repositories are asked for fewer tiles by the size of the picture."""
    front = servers.get(NEW, "InternVL3_5-8B-HF")
    described = front.client.describe(Image.new("RGB", size, "red"), detail=detail)
    tiles = len(front.seen().images[0].tiles)
    assert tiles <= most
    assert described.images[0].tiles == tiles
