"""Streams as servers write them, and as they break."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import internvl_modal as ivl
from internvl_modal.protocol.completion_stream import CompletionStream
from tests.loopback import Loopback, Reply
from tests.servers import answers
from tests.servers.answers import chat, piece, used
from tests.test_wire import make_call, picture

CALL = make_call(picture(1))
TEXT = piece({"role": "assistant", "content": ""}) + piece({"content": "A "})
END = piece({"content": "cat."}) + piece({}, "stop")
DONE = "data: [DONE]\n\n"


def collect(raw: str | bytes, **options: Any) -> tuple[list[str], ivl.Description]:
    stream = CompletionStream(make_call(picture(1), **options))
    data = raw.encode() if isinstance(raw, str) else raw
    pieces = list(stream.feed(data))
    return pieces, stream.finish()


WHOLE = {
    "as OpenAI writes it": TEXT + END + DONE,
    "empty data": TEXT + "data:\n\n" + "data: \n\n" + END + DONE,
    "no [DONE] after the end": TEXT + END,
    "[DONE] without a blank line": TEXT + END + "data: [DONE]\n",
    "[DONE] without a line's end": TEXT + END + "data: [DONE]",
    "the last event without a blank line": TEXT + END.rstrip("\n"),
    "no finish_reason but [DONE]": TEXT + piece({"content": "cat."}) + DONE,
    "CR": (TEXT + END + DONE).replace("\n", "\r"),
    "CRLF": (TEXT + END + DONE).replace("\n", "\r\n"),
    "BOM": "\ufeff" + TEXT + END + DONE,
    "comments": ": OPENROUTER PROCESSING\n\n" + TEXT + ":\n\n" + END + DONE,
    "other fields": "id: 1\nretry: 3\n" + TEXT + "event: message\n" + END + DONE,
    "pings": TEXT + "event: ping\ndata: keep-alive\n\n" + 'data: {"type": "ping"}\n\n' + END + DONE,
    "null": TEXT + "data: null\n\n" + END + DONE,
    "no blank lines": (TEXT + END + DONE).replace("\n\n", "\n"),
    "message in place of delta": TEXT
    + json.dumps({"choices": [{"message": {"content": "cat."}, "finish_reason": "stop"}]}).join(
        ("data: ", "\n\n")
    ),
    "something after [DONE]": TEXT + END + DONE + piece({"content": "!"}),
}


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE)
def test_a_whole_stream(raw: str) -> None:
    pieces, answer = collect(raw)
    assert answer.text == "A cat."
    assert answer.finish_reason == "stop"
    assert "A cat.".startswith("".join(pieces))


@given(
    st.sampled_from([raw for name, raw in WHOLE.items() if "line" not in name]),
    st.lists(st.integers(1, 40), max_size=60),
)
def test_any_split_gives_the_same(raw: str, cuts: list[int]) -> None:
    stream, data, pieces = CompletionStream(CALL), raw.encode(), []
    for cut in [*cuts, len(data)]:
        chunk, data = data[:cut], data[cut:]
        pieces += stream.feed(chunk)
    assert "".join(pieces) == stream.finish().text == "A cat."


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
def test_the_end_is_known_at_once(newline: str) -> None:
    stream = CompletionStream(CALL)
    raw = (TEXT + END + "data: [DONE]\n").replace("\n", newline).encode()
    assert "".join(stream.feed(raw)) == "A cat."
    assert stream.done


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_connection_that_stays_open_after_the_end(loopback: Loopback, asynchronous: bool) -> None:
    left = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield (TEXT + END + DONE).encode()
        left.wait(30)
        yield b": still here\n\n"

    loopback.will(lambda _: Reply(chunks=chunks()))
    image = Image.new("RGB", (60, 60))
    try:
        if asynchronous:
            import asyncio

            async def ask() -> list[str]:
                async with ivl.AsyncClient(loopback.url, model="m") as client:
                    return [text async for text in client.stream(image)]

            assert "".join(asyncio.run(asyncio.wait_for(ask(), 20))) == "A cat."
        else:
            with ivl.Client(loopback.url, model="m", timeout=20) as client:
                assert "".join(client.stream(image)) == "A cat."
    finally:
        left.set()


@pytest.mark.parametrize("start", ["", "\n\n", "\ufeff"])
def test_a_whole_completion_where_a_stream_was_asked(start: str) -> None:
    body = start + json.dumps(chat("A cat.", "stop", used(400)), indent=1)
    assert collect(body)[0] == ["A cat."]
    stream, pieces = CompletionStream(CALL), []
    for byte in body.encode():
        pieces += stream.feed(bytes([byte]))
    assert pieces == ["A cat."]
    answer = stream.finish()
    assert (answer.text, answer.usage.prompt_tokens, answer.request_id) == ("A cat.", 400, "1")


def test_a_thought_is_not_among_the_pieces() -> None:
    raw = "".join(piece({"content": c}) for c in "<think>hm.</think>\n\nA cat.") + END + DONE
    pieces, answer = collect(raw)
    assert "".join(pieces) == answer.text == "A cat.cat."
    assert answer.reasoning == "hm."
    raw = piece({"reasoning": "hm"}) + piece({"reasoning_content": "."}) + TEXT + END + DONE
    assert collect(raw)[1].reasoning == "hm."


@pytest.mark.parametrize(
    ("raw", "kind", "words", "text"),
    [
        (TEXT, ivl.EngineError, "ended early, after 2 characters", "A "),
        ("", ivl.EngineError, "ended early, after 0 characters", ""),
        (TEXT + 'error: {"code":400,"message":"the slot context is full"}\n\n',
         ivl.ContextLengthError, "slot context", "A "),
        ('event: error\ndata: {"message":"overloaded"}\n\n', ivl.ServerUnavailableError,
         "overloaded", ""),
        ("event: error\ndata: boom\n\n", ivl.EngineError, "boom", ""),
        ('data: {"error":{"code":429,"message":"slow down"}}\n\n', ivl.RateLimitedError,
         "slow down", ""),
        (answers.SGLANG_STREAM_ERROR, ivl.ServerUnavailableError, "overloaded", ""),
        (answers.LMSTUDIO_STREAM_ERROR, ivl.EngineError, "unloaded", ""),
        (answers.OPENROUTER_BROKEN_STREAM, ivl.ServerUnavailableError, "disconnected", "A "),
        ('{"error": {"message": "CUDA out of memory", "code": 500}}', ivl.EngineError, "CUDA", ""),
        ('{"choices": [', ivl.ServerError, "no event", ""),
        ("<html><body>Sign in</body></html>", ivl.ServerError, "Sign in", ""),
        (piece({"reasoning": "hm"}) + piece({}, "stop") + DONE, ivl.EmptyAnswerError,
         "only reasoning", ""),
        (piece({"refusal": "No."}) + piece({}, "stop") + DONE, ivl.EmptyAnswerError,
         "refuses: No", ""),
        (piece({"content": "A "}) + piece({}, "error") + DONE, ivl.EngineError, "A ", "A "),
    ],
)  # fmt: skip
def test_a_stream_that_fails(raw: str, kind: type[ivl.ServerError], words: str, text: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        collect(raw)
    assert type(caught.value) is kind
    assert caught.value.text == text


@pytest.mark.parametrize(
    "raw", [answers.OPENROUTER_STREAM, answers.TGI_STREAM], ids=["OpenRouter", "TGI"]
)
def test_streams_of_other_servers(raw: str) -> None:
    assert collect(raw)[1].text == "A cat."
