"""What is asked of the client on vLLM and does not hold yet."""

from __future__ import annotations

from typing import Literal

import pytest
from PIL import Image
from pydantic import BaseModel

import internvl_modal as ivl
from tests.vllm.between import END, START, Between, saying, through, turn
from tests.vllm.server import Server
from tests.vllm.tiny_model import CONTEXT, count, token_id

PICTURE = Image.new("RGB", (896, 448), "red")
SMALL = Image.new("RGB", (100, 100), "blue")
LARGE = Image.new("RGB", (4000, 3000), "red")
INTERNVL_2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、"  # noqa: RUF001
    "清华大学及多家合作单位联合开发的多模态大语言模型。"
)
"""The system message of LMDeploy 0.7.3's template ``internvl2_5`` (lmdeploy/model.py)."""


def answer_of(client: ivl.Client, streamed: bool, **options: object) -> ivl.Description:
    if not streamed:
        return client.describe(PICTURE, **options)  # type: ignore[arg-type]
    stream = client.stream(PICTURE, **options)  # type: ignore[arg-type]
    assert "".join(stream) == stream.description.text
    return stream.description


def test_without_a_system_message_internvls_own_is_sent(vllm: Server) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, "What is this?")
    assert between.prompt.startswith(turn("system", INTERNVL_2_5) + f"{START}user\n")


def test_an_empty_system_message_is_sent_empty(vllm: Server) -> None:
    """Qwen's template would write its own."""
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, "What is this?", system="")
    assert between.prompt == (
        turn("system", "") + turn("user", "<3 tiles>\nWhat is this?") + f"{START}assistant\n"
    )


def test_labels_stand_with_their_pictures(vllm: Server) -> None:
    between = saying("Two pictures.")
    with through(vllm, between) as client:
        client.describe([PICTURE, SMALL], "What are these?", system="-")
    asked = between.prompt.split(f"{START}user\n")[1].split(END)[0]
    assert asked == "Image-1: <3 tiles>\nImage-2: <1 tiles>\nWhat are these?"


def test_each_turn_has_its_own_pictures(vllm: Server) -> None:
    between = saying("Blue.")
    first = {"role": "user", "text": "One", "images": [PICTURE, SMALL]}
    last = {"role": "user", "text": "Two", "images": [SMALL, PICTURE]}
    with through(vllm, between) as client:
        client.chat([first, {"role": "assistant", "text": "Red."}, last], system="-")
    asked = [part.split(END)[0] for part in between.prompt.split(f"{START}user\n")[1:]]
    assert asked == [
        "Image-1: <3 tiles>\nImage-2: <1 tiles>\nOne",
        "Image-1: <1 tiles>\nImage-2: <3 tiles>\nTwo",
    ]


@pytest.mark.parametrize("name", ["ref", "box"])
def test_grounding_marks_pass_where_the_caller_says_so(vllm: Server, name: str) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, f"Where is <{name}>it</{name}>?", grounding=True)  # type: ignore[call-arg]
    tokens = between.answers[-1].json()["prompt_token_ids"]
    assert tokens.count(token_id(f"<{name}>")) == tokens.count(token_id(f"</{name}>")) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_more_stop_strings_than_vllm_takes(vllm: Server, streamed: bool) -> None:
    with through(vllm, saying("one two three four five six")) as client:
        answer = answer_of(client, streamed, stop=["A", "B", "C", "D", "five"])
    assert (answer.text, answer.finish_reason) == ("one two three four ", "stop")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_the_server_ended_for_its_repetition_is_kept(
    vllm: Server, streamed: bool
) -> None:
    limits = {"max_pattern_size": 4, "min_pattern_size": 1, "min_count": 4}
    with through(vllm, saying("so" * 20, repetition_detection=limits)) as client:
        answer = answer_of(client, streamed)
    assert answer.text.startswith("sososo")
    assert len(answer.text) < 20
    assert any("repetition" in warning for warning in answer.warnings)


@pytest.mark.parametrize("streamed", [False, True])
def test_no_text_is_no_description(vllm: Server, streamed: bool) -> None:
    between = Between(logit_bias={str(token_id("<|im_end|>")): 100})
    with (
        through(vllm, between, retry=ivl.Retry(attempts=1)) as client,
        pytest.raises(ivl.EmptyAnswerError),  # type: ignore[attr-defined]
    ):
        answer_of(client, streamed)


@pytest.mark.parametrize("streamed", [False, True])
def test_tokens_spent_without_a_text_are_no_full_context(vllm: Server, streamed: bool) -> None:
    between = Between(logit_bias={str(token_id("<quad>")): 100})
    with through(vllm, between) as client, pytest.raises(ivl.ServerError) as caught:
        answer_of(client, streamed, max_tokens=9)
    assert not isinstance(caught.value, ivl.ContextLengthError)
    assert "max_tokens" in str(caught.value)


@pytest.mark.parametrize("streamed", [False, True])
def test_thoughts_are_no_part_of_the_text(vllm: Server, streamed: bool) -> None:
    with through(vllm, saying("<think>red?</think>\n\nA square.")) as client:
        answer = answer_of(client, streamed)
    assert answer.text == "A square."
    assert answer.reasoning == "red?"  # type: ignore[attr-defined]


class Colours(BaseModel):
    seen: set[Literal["red", "blue"]]


def test_a_schema_that_the_server_refuses_is_left_out(vllm: Server) -> None:
    """vLLM has no grammar for ``uniqueItems``, which is what a set becomes."""
    between = Between()
    with (
        through(vllm, between) as client,
        pytest.raises(ivl.OutputInvalidError) as caught,
    ):
        client.extract(PICTURE, Colours, repairs=0, max_tokens=8)
    assert [answer.status_code for answer in between.answers] == [400, 200]
    assert "response_format" not in between.asked[-1]
    assert caught.value.text == between.answers[-1].json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("streamed", [False, True])
def test_how_many_tokens_pictures_needed(vllm: Server, streamed: bool) -> None:
    """vLLM says "Input length (16717) exceeds model's maximum context length (16384)."."""
    with ivl.Client(base_url=vllm.url) as client, pytest.raises(ivl.ContextLengthError) as caught:
        if streamed:
            list(client.stream([LARGE] * 5, system="-"))
        else:
            client.describe([LARGE] * 5, system="-")
    assert caught.value.available == CONTEXT
    assert caught.value.needed is not None
    assert 5 * 3328 < caught.value.needed < 5 * 3328 + 200


def test_how_many_tokens_a_text_needed(vllm: Server) -> None:
    """vLLM says "at least 16385" and counts no further."""
    with ivl.Client(base_url=vllm.url) as client, pytest.raises(ivl.ContextLengthError) as caught:
        client.chat([{"role": "user", "text": "x" * CONTEXT}])
    assert (caught.value.needed, caught.value.available) == (CONTEXT + 1, CONTEXT)


def test_a_prompt_that_fills_the_context_to_the_last_token(vllm: Server) -> None:
    """vLLM says "max_tokens must be at least 1, got 0", though more was asked for."""
    around = count(turn("system", "-") + turn("user", "") + f"{START}assistant\n")
    with ivl.Client(base_url=vllm.url) as client:
        fits = client.chat([{"role": "user", "text": "x" * (CONTEXT - around - 1)}], system="-")
        assert fits.usage.prompt_tokens == CONTEXT - 1
        with pytest.raises(ivl.ContextLengthError):
            client.chat([{"role": "user", "text": "x" * (CONTEXT - around)}], system="-")


DETAILS = [
    ((2700, 1800), 1, 1),
    ((2700, 1800), 6, 7),
    ((640, 480), 6, 7),
    ((640, 480), "low", 7),
    ((896, 448), 2, 3),
    ((100, 75), 1, 1),
]
MORE = [((2700, 1800), 24, 25), ((2700, 1800), "high", 25)]


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
