"""How an answer ended, in the words of every server, and answers without a description."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.loopback import Loopback, Reply
from tests.servers.answers import chat, used
from tests.test_wire import decoded, make_call, picture

ONE_TILE = make_call(picture(1))


def read(*args: Any, usage: dict[str, int] | None = None, **message: Any) -> ivl.Description:
    return decoded(chat(*args, usage=usage, **message), ONE_TILE)


@pytest.mark.parametrize(
    "word",
    [None, "", "stop", "eos", "eos_token", "stop_sequence", "end_turn", "STOP", "Stop", "end",
     "FINISH_REASON_STOP", "FinishReason.STOP", {"type": "stop", "matched": 151645}, {"type": None}],
)  # fmt: skip
def test_an_end(word: Any) -> None:
    answer = read("A cat.", word)
    assert (answer.text, answer.finish_reason, answer.warnings) == ("A cat.", "stop", ())


@pytest.mark.parametrize(
    "word",
    [
        *("length", "max_tokens", "MAX_TOKENS", "model_length", "FinishReason.MAX_TOKENS"),
        {"type": "length", "length": 1024},
    ],
)
def test_a_cut(word: Any) -> None:
    answer = read("A cat.", word, usage=used(400, 1024))
    assert (answer.text, answer.finish_reason) == ("A cat.", "length")
    assert answer.warnings == ("the answer was cut at 1024 tokens",)


@pytest.mark.parametrize(
    "word", ["repetition", "abort", "content_filter", "tool_calls", "parse_error", "SAFETY", 7, {}]
)
def test_an_unknown_word_keeps_the_text(word: object) -> None:
    answer = decoded({**chat(), "choices": [{**chat()["choices"][0], "finish_reason": word}]})
    assert (answer.text, answer.finish_reason) == ("A cat.", "stop")
    assert answer.warnings == (f"the answer ended with finish_reason {word!r}",)


def test_a_failure_that_has_a_text_keeps_it() -> None:
    with pytest.raises(ivl.EngineError) as caught:
        read("A cat and", "error")
    assert caught.value.text == "A cat and"


@pytest.mark.parametrize("finish", ["stop", None, "abort", "content_filter", "tool_calls"])
@pytest.mark.parametrize(
    "text", ["", None, " \n", "\u200b\ufeff ", [], [{"type": "text", "text": ""}]]
)
def test_no_text_is_no_description(text: Any, finish: str | None) -> None:
    with pytest.raises(ivl.EmptyAnswerError, match="no description") as caught:
        read(text, finish, usage=used(400, 1))
    assert caught.value.retryable
    assert caught.value.most_attempts == 2
    if finish not in ("stop", None):
        assert finish in str(caught.value)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"refusal": "I cannot help with that."}, "refuses: I cannot help with that."),
        ({"reasoning_content": "A cat?"}, "only reasoning"),
        ({"reasoning": "A cat?"}, "only reasoning"),
        (
            {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]},
            "only reasoning",
        ),
    ],
)
def test_what_stands_in_its_place_is_said(message: dict[str, str], words: str) -> None:
    with pytest.raises(ivl.EmptyAnswerError, match=words):
        read(None, "stop", **message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", {"reasoning_content": "hmm " * 900}),
        (None, {"reasoning": "hmm " * 900}),
        ("<think>hmm hmm", {}),
        ("", {}),
    ],
)
@pytest.mark.parametrize("finish", ["length", "max_tokens"])
def test_reasoning_that_spent_the_tokens(text: Any, message: dict[str, str], finish: str) -> None:
    with pytest.raises(ivl.EmptyAnswerError, match="cut at 1024 tokens") as caught:
        read(text, finish, usage=used(300, 1024), **message)
    assert "raise max_tokens" in caught.value.hint
    assert not caught.value.retryable
    assert "hmm" in caught.value.reasoning or not (text or message)


@pytest.mark.parametrize(
    ("text", "message", "answer", "reasoning"),
    [
        ("<think>A cat? Yes.</think>\n\nA cat.", {}, "A cat.", "A cat? Yes."),
        ("<thinking>Yes.</thinking>A cat.", {}, "A cat.", "Yes."),
        ("<seed:think>Yes.</seed:think>A cat.", {}, "A cat.", "Yes."),
        ("◁think▷Yes.◁/think▷A cat.", {}, "A cat.", "Yes."),
        ("A cat? Yes.\n</think>\nA cat.", {}, "A cat.", "A cat? Yes."),
        ("<think>\n\n</think>\n\nA cat.", {}, "A cat.", ""),
        ("A <think>big</think>cat.", {}, "A cat.", "big"),
        ("A cat.", {"reasoning_content": "Yes."}, "A cat.", "Yes."),
        ("A cat.", {"reasoning": "Yes.", "reasoning_content": None}, "A cat.", "Yes."),
        ("A <thin line.", {}, "A <thin line.", ""),
    ],
)
def test_reasoning_is_kept_apart(
    text: str, message: dict[str, Any], answer: str, reasoning: str
) -> None:
    found = read(text, "stop", **message)
    assert (found.text, found.reasoning) == (answer, reasoning)


def test_reasoning_among_the_parts() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Yes."}]}
    found = read([thought, {"type": "text", "text": "A cat."}])
    assert (found.text, found.reasoning) == ("A cat.", "Yes.")


def test_a_stop_string_in_the_reasoning_ends_nothing() -> None:
    call = make_call(picture(1), stop=["\n\n"])
    found = decoded(chat("<think>One.\n\nTwo.</think>A cat.\n\nA dog."), call)
    assert found.text == "A cat."


def test_a_stop_string_that_ends_everything() -> None:
    with pytest.raises(ivl.EmptyAnswerError, match="stop string"):
        decoded(chat("A cat."), make_call(picture(1), stop=["A"]))


@pytest.mark.parametrize(
    "error",
    [
        ivl.ContextLengthError("full", hint="less", needed=9, available=4, status=400, body="b"),
        ivl.ImageNotSeenError("unseen", expected=9, actual=4, text="Black."),
        ivl.OutputInvalidError("odd", hint="again", text="{", request_id="r"),
        ivl.EmptyAnswerError("empty", reasoning="hmm", retryable=False),
        ivl.MissingExtraError("av", "video"),
        ivl.ImageError("is odd", source="a.png", hint="look"),
    ],
)
def test_errors_say_the_same_everywhere(error: ivl.InternVLError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert again.args == error.args == (str(error),) == (str(again),)
    assert error.hint in str(error)


def test_an_empty_answer_is_asked_for_once_more_and_then_recorded(
    loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=chat("", "stop", reasoning_content="A cat?")))
    retry = ivl.Retry(attempts=5, initial=0)
    with ivl.Client(loopback.url, model="m", retry=retry) as client:
        with pytest.raises(ivl.EmptyAnswerError):
            client.describe(Image.new("RGB", (9, 9)))
        assert len(loopback.chats) == 2
        pictures = {f"k{i}": Image.new("RGB", (9, 9 + i)) for i in range(30)}
        out = tmp_path / "out.jsonl"
        found = list(client.describe_many(pictures, out=out, progress=False))
    assert {type(outcome.error) for outcome in found} == {ivl.EmptyAnswerError}
    assert {outcome.attempts for outcome in found} == {2}
    assert len(out.read_text().splitlines()) == 30


def test_reasoning_that_spent_the_tokens_is_not_asked_for_again(loopback: Loopback) -> None:
    loopback.will(Reply(body=chat("", "length", used(300, 1024), reasoning_content="hmm")))
    with ivl.Client(loopback.url, model="m") as client, pytest.raises(ivl.EmptyAnswerError):
        client.describe(Image.new("RGB", (9, 9)))
    assert len(loopback.chats) == 1


def test_a_context_that_leaves_a_few_tokens_is_not_raised_by_max_tokens() -> None:
    with pytest.raises(ivl.EmptyAnswerError, match="the context is full") as caught:
        read("", "length", usage=used(16379, 5))
    assert "raise max_tokens" not in caught.value.hint
