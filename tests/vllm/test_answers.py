"""What vLLM answers, good and bad, as the client understands it."""

from __future__ import annotations

from typing import Literal

import pytest
from PIL import Image
from pydantic import BaseModel

import internvl_modal as ivl
from tests.vllm.between import START, Between, Losing, Spoiling, saying, through, turn
from tests.vllm.server import MODEL, Server
from tests.vllm.tiny_model import CONTEXT, count, token_id

PICTURE = Image.new("RGB", (896, 448), "red")
LARGE = Image.new("RGB", (4000, 3000), "red")
"""13 tiles, 3,328 tokens."""
TEXT = "Zwei Bären 🐻🐻, 两只熊。"


def ask(client: ivl.Client, pictures: list[Image.Image], streamed: bool) -> None:
    if streamed:
        list(client.stream(pictures))
    else:
        client.describe(pictures)


def answer_of(client: ivl.Client, streamed: bool, **options: object) -> ivl.Description:
    if not streamed:
        return client.describe(PICTURE, **options)  # type: ignore[arg-type]
    stream = client.stream(PICTURE, **options)  # type: ignore[arg-type]
    assert "".join(stream) == stream.description.text
    return stream.description


def test_a_plain_answer(vllm: Server) -> None:
    between = saying(TEXT)
    with through(vllm, between) as client:
        answer = client.describe(PICTURE)
    assert answer.text == TEXT
    assert answer.model == MODEL
    assert answer.finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(between.answers[-1].json()["prompt_token_ids"])
    assert answer.usage.completion_tokens == len(TEXT.encode()) + 1
    assert answer.seen == "confirmed"
    assert answer.warnings == ()
    assert answer.request_id == between.answers[-1].json()["id"]


def test_a_stream(vllm: Server) -> None:
    with through(vllm, saying(TEXT)) as client:
        stream = client.stream(PICTURE)
        pieces = list(stream)
    assert "".join(pieces) == TEXT
    assert len(pieces) > 1
    answer = stream.description
    assert answer.text == TEXT
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens == len(TEXT.encode()) + 1
    assert answer.seen == "confirmed"


def test_an_answer_cut_at_max_tokens(vllm: Server) -> None:
    with through(vllm, saying("A long answer.")) as client:
        answer = client.describe(PICTURE, max_tokens=6)
        stream = client.stream(PICTURE, max_tokens=6)
        assert "".join(stream) == answer.text == "A long"
    for each in (answer, stream.description):
        assert each.finish_reason == "length"
        assert each.usage.completion_tokens == 6
        assert each.warnings == ("the answer was cut at 6 tokens",)


def test_an_answer_cut_by_the_context_is_said_so(client: ivl.Client) -> None:
    """vLLM lowers max_tokens without a word to what is left."""
    answer = client.describe([LARGE] * 4 + [PICTURE] * 3, max_tokens=4000)
    left = CONTEXT - answer.usage.prompt_tokens
    assert 0 < left < 4000
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == left
    assert answer.warnings[0].startswith(f"the answer was cut at {left} tokens (of 4000 asked for")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("stop", ["END", ["three", "END"]])
def test_stop_strings(vllm: Server, stop: str | list[str], streamed: bool) -> None:
    with through(vllm, saying("one END two three")) as client:
        if streamed:
            stream = client.stream(PICTURE, stop=stop)
            assert "".join(stream) == "one "
            answer = stream.description
        else:
            answer = client.describe(PICTURE, stop=stop)
    assert (answer.text, answer.finish_reason) == ("one ", "stop")
    assert answer.usage.completion_tokens < len("one END two")


def test_0_is_greedy_and_a_seed_repeats_itself(client: ivl.Client) -> None:
    first, second = (client.describe(PICTURE, max_tokens=20).text for _ in range(2))
    assert first == second
    sampled = [
        client.describe(PICTURE, max_tokens=20, temperature=1.0, seed=seed).text
        for seed in (0, 0, None, None)
    ]
    assert sampled[0] == sampled[1]
    assert len(set(sampled)) == 3


class Sign(BaseModel):
    colour: Literal["red", "green", "blue"]
    round: bool
    words: tuple[Literal["stop", "go"], Literal["now", "later"]]


def test_extract_is_held_to_the_schema(vllm: Server) -> None:
    """Random weights write no JSON of their own accord: the server's grammar makes them.

    Greedy ones never leave the white space that the grammar allows.
    """
    between = Between()
    with through(vllm, between) as client:
        found = client.extract(PICTURE, Sign, repairs=0, temperature=1.0, seed=1, max_tokens=4000)
    assert isinstance(found, Sign)
    assert len(between.answers) == 1


def test_an_extract_that_is_cut_keeps_its_text(client: ivl.Client) -> None:
    with pytest.raises(ivl.OutputInvalidError, match="cut at 5 tokens") as caught:
        client.extract(PICTURE, Sign, max_tokens=5)
    assert caught.value.text.startswith("{")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_picture_that_vllm_cannot_load(vllm: Server, streamed: bool) -> None:
    with (
        through(vllm, Spoiling()) as client,
        pytest.raises(ivl.RequestRejectedError, match="cannot identify image file") as caught,
    ):
        ask(client, [PICTURE], streamed)
    assert caught.value.status == 400


@pytest.mark.parametrize("streamed", [False, True])
def test_a_picture_that_does_not_arrive(vllm: Server, streamed: bool) -> None:
    with (
        through(vllm, Losing()) as client,
        pytest.raises(ivl.ImageNotSeenError, match="did not see the picture") as caught,
    ):
        ask(client, [PICTURE], streamed)
    assert caught.value.expected == 3 * 256
    assert caught.value.actual is not None
    assert caught.value.actual < 256


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("pictures", [5, 9])
def test_pictures_beyond_the_context(client: ivl.Client, pictures: int, streamed: bool) -> None:
    with pytest.raises(ivl.ContextLengthError) as caught:
        ask(client, [LARGE] * pictures, streamed)
    assert caught.value.available == CONTEXT
    assert not caught.value.retryable


def test_a_text_beyond_the_context(client: ivl.Client) -> None:
    with pytest.raises(ivl.ContextLengthError) as caught:
        client.describe(PICTURE, "x" * CONTEXT)
    assert caught.value.available == CONTEXT


@pytest.mark.parametrize("streamed", [False, True])
def test_an_unknown_model(vllm: Server, streamed: bool) -> None:
    with (
        ivl.Client(base_url=vllm.url, model="other") as client,
        pytest.raises(ivl.RequestRejectedError, match="The model `other` does not exist") as at,
    ):
        ask(client, [PICTURE], streamed)
    assert at.value.status == 404


def test_models(client: ivl.Client) -> None:
    assert client.models() == [MODEL]


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
        pytest.raises(ivl.EmptyAnswerError),
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
    assert answer.reasoning == "red?"


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
