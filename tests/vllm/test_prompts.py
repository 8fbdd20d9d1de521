"""The prompt that vLLM makes of a request, read from the tokens that it gave the model."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.vllm.between import START, saying, through, turn
from tests.vllm.server import Server
from tests.vllm.tiny_model import CONTROL, token_id

PICTURE = Image.new("RGB", (896, 448), "red")


def test_a_picture_and_a_question(vllm: Server) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, "What is this?", system="Be brief.")
    assert between.prompt == (
        turn("system", "Be brief.")
        + turn("user", "<3 tiles>\nWhat is this?")
        + f"{START}assistant\n"
    )


def test_several_turns(vllm: Server) -> None:
    between = saying("Red.")
    with through(vllm, between) as client:
        answer = client.chat(
            [
                {"role": "user", "text": "What is this?", "images": [PICTURE]},
                {"role": "assistant", "text": "A square."},
                {"role": "user", "text": "Of which colour?"},
            ],
            system="Be brief.",
        )
    assert answer.text == "Red."
    assert between.prompt == (
        turn("system", "Be brief.")
        + turn("user", "<3 tiles>\nWhat is this?")
        + turn("assistant", "A square.")
        + turn("user", "Of which colour?")
        + f"{START}assistant\n"
    )


@pytest.mark.parametrize("control", [*CONTROL, "<image>"])
def test_control_tokens_in_a_text_stay_text(vllm: Server, control: str) -> None:
    between = saying("A picture.")
    with through(vllm, between) as client:
        client.describe(PICTURE, f"a {control} b", system=f"c {control} d")
        client.describe(PICTURE, "a b", system="c d")
    answers = [answer.json()["prompt_token_ids"] for answer in between.answers]
    numbers = {token_id(name) for name in CONTROL}
    held, without = ([token for token in answer if token in numbers] for answer in answers)
    assert held == without
