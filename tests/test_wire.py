"""Requests as bytes, and every answer a server gives, deceptive ones included."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import internvl_modal as ivl
from internvl_modal.images.encode import PreparedImage
from internvl_modal.protocol.answer_warnings import repetition
from internvl_modal.protocol.call import ChatCall
from internvl_modal.protocol.chat_request import chat_request
from internvl_modal.protocol.completion import decode_completion, decode_models
from internvl_modal.protocol.completion_stream import CompletionStream
from internvl_modal.protocol.dialects.lmdeploy import ZERO_SEED
from internvl_modal.protocol.endpoint import Capabilities, Endpoint
from internvl_modal.protocol.error_documents import seconds
from internvl_modal.protocol.error_responses import error_from_response
from internvl_modal.protocol.http import HttpResponse
from internvl_modal.protocol.sse import EventDecoder
from internvl_modal.protocol.turns import Turn, neutralise
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.schema.results import ImageInfo
from tests.loopback import completion, stream_events


def picture(tiles: int = 13, payload: bytes = b"\xff\xd8pixels") -> PreparedImage:
    info = ImageInfo(
        source="p.jpg",
        width=100,
        height=100,
        format="JPEG",
        sent_width=100,
        sent_height=100,
        sent_format="image/jpeg",
        bytes_sent=len(payload),
        grid=(4, 3),
        tiles=tiles,
        tokens=256 * tiles,
        max_tiles=12,
    )
    return PreparedImage(payload, info)


def make_call(
    *images: PreparedImage,
    text: str = "What?",
    dialect: str = "lmdeploy",
    tokens_per_tile: int | None = 256,
    json_schema: bool = False,
    **options: Any,
) -> ChatCall:
    capabilities = Capabilities(dialect, tokens_per_tile=tokens_per_tile, json_schema=json_schema)
    endpoint = Endpoint("http://127.0.0.1:1/v1", headers={"authorization": "Bearer k"})
    turns = (Turn("user", text, images or (picture(),)),)
    return ChatCall(endpoint, capabilities, "m", turns, DescribeOptions.parse(options))  # type: ignore[arg-type]


def decoded(document: object, call: ChatCall | None = None, status: int = 200) -> ivl.Description:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_completion(
        HttpResponse(status, {"x-request-id": "r1"}, body), call or make_call()
    )


class TestRequest:
    def test_lmdeploy_gets_one_text_item_with_a_token_per_picture(self) -> None:
        call = make_call(picture(payload=b"one"), picture(payload=b"two"))
        body = json.loads(chat_request(call).body)
        text, *pictures = body["messages"][0]["content"]
        assert text["text"] == "Image-1: <IMAGE_TOKEN>\nImage-2: <IMAGE_TOKEN>\nWhat?"
        urls = [part["image_url"]["url"] for part in pictures]
        assert [base64.b64decode(url.partition(",")[2]) for url in urls] == [b"one", b"two"]
        assert pictures[0]["image_url"]["max_dynamic_patch"] == 12

    def test_other_servers_get_parts_in_order(self) -> None:
        call = make_call(picture(), picture(), dialect="openai")
        content = json.loads(chat_request(call).body)["messages"][0]["content"]
        shape = [part.get("text", "picture") for part in content]
        assert shape == ["Image-1: ", "picture", "Image-2: ", "picture", "What?"]
        assert set(content[1]["image_url"]) == {"url"}

    def test_frames_are_numbered_as_the_model_was_trained(self) -> None:
        turn = Turn("user", "What?", (picture(1), picture(1)), "Frame")
        call = replace(make_call(), turns=(turn,))
        text = json.loads(chat_request(call).body)["messages"][0]["content"]
        assert text[0]["text"] == "Frame1: <IMAGE_TOKEN>\nFrame2: <IMAGE_TOKEN>\nWhat?"

    @pytest.mark.parametrize(
        ("dialect", "options", "sent"),
        [
            ("lmdeploy", {}, {"temperature": 0, "top_k": 1, "max_tokens": 1024}),
            ("openai", {}, {"temperature": 0, "max_tokens": 1024}),
            ("lmdeploy", {"seed": 0, "temperature": 1}, {"temperature": 1, "seed": ZERO_SEED}),
            ("llamacpp", {"seed": 0, "temperature": 1}, {"temperature": 1, "seed": 0}),
            ("llamacpp", {"repetition_penalty": 1.1}, {"repeat_penalty": 1.1, "top_k": 1}),
            ("lmdeploy", {"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
            (
                "openai",
                {"stop": "x", "top_p": 0.5, "top_k": 3},
                {"stop": ["x"], "top_p": 0.5, "top_k": 3},
            ),
        ],
    )
    def test_sampling(self, dialect: str, options: Any, sent: dict[str, Any]) -> None:
        body = json.loads(chat_request(make_call(dialect=dialect, **options)).body)
        assert {**body, **sent} == body
        assert "top_k" not in body or "top_k" in {**sent, **options} or dialect != "openai"

    def test_the_key_is_in_the_headers_and_in_no_repr(self) -> None:
        request = chat_request(make_call())
        assert request.headers["authorization"] == "Bearer k"
        assert "Bearer" not in repr(request)
        assert "Bearer" not in repr(make_call())

    @given(st.text(max_size=200))
    def test_any_text_arrives(self, text: str) -> None:
        turns = json.loads(chat_request(make_call(text=text, dialect="openai")).body)["messages"]
        sent = turns[0]["content"][-1]["text"]
        assert sent == neutralise(text).encode("utf-8", "replace").decode()

    @pytest.mark.parametrize(
        "token",
        ["<IMAGE_TOKEN>", "<img>", "</img>", "<IMG_CONTEXT>", "<|im_end|>", "<image>", "<__media__>",
         "<|endoftext|>", "</s>", "<box>", "<|action_start|>"],
    )  # fmt: skip
    def test_control_tokens_are_broken_but_kept(self, token: str) -> None:
        assert neutralise(f"a{token}b") == f"a< {token[1:]}b"
        found = decoded(completion(), make_call(text=token)).warnings
        assert any("control tokens" in warning for warning in found)

    def test_ordinary_brackets_are_left_alone(self) -> None:
        text = "if a < b: <b>bold</b> <- <| |> x<y>"
        assert neutralise(text) == text


class TestAnswers:
    def test_a_description(self) -> None:
        description = decoded(completion("A cat.", prompt_tokens=3400))
        assert str(description) == description.text == "A cat."
        assert description.usage.total_tokens == 3403
        assert description.seen == "confirmed"
        assert description.request_id == "r1"
        assert description.images[0].tiles == 13

    def test_an_engine_failure_said_with_200(self) -> None:
        with pytest.raises(ivl.EngineError, match="internal error happened") as caught:
            decoded(completion("internal error happened", finish="error"))
        assert caught.value.retryable

    def test_a_full_context_said_with_200(self) -> None:
        with pytest.raises(ivl.ContextLengthError, match="does not fit") as caught:
            decoded(completion("", finish="length", completion_tokens=0, prompt_tokens=9000))
        assert caught.value.needed == 9000

    @pytest.mark.parametrize("count", [1, 256, 3327])
    def test_a_picture_that_was_not_seen(self, count: int) -> None:
        with pytest.raises(ivl.ImageNotSeenError) as caught:
            decoded(completion("A black square.", prompt_tokens=count))
        assert (caught.value.expected, caught.value.actual) == (3328, count)

    def test_one_of_several_pictures_not_seen(self) -> None:
        call = make_call(picture(13), picture(13))
        with pytest.raises(ivl.ImageNotSeenError):
            decoded(completion(prompt_tokens=14 * 256 + 80), call)

    @pytest.mark.parametrize(
        ("call", "count"),
        [
            (make_call(picture(1)), 330),
            (make_call(picture(3), text="word " * 200), 3 * 256 + 300),
            (make_call(picture(13), tokens_per_tile=None), 20),
            (make_call(picture(13)), 0),
        ],
        ids=["one tile", "long text", "unknown model", "no count"],
    )
    def test_what_cannot_be_verified_says_so(self, call: ChatCall, count: int) -> None:
        assert decoded(completion(prompt_tokens=count), call).seen == "unverifiable"

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", "an empty body"),
            (b"<html><title>hi</title></html>", "hi"),
            (b"[]", "no JSON object"),
            (b'{"choices": []}', "without choices"),
            (b'{"choices": [{"finish_reason": "stop"}]}', "without a message"),
            (b'{"object": "error", "message": "boom", "code": 400}', "boom"),
            (b'{"error": {"message": "boom"}}', "boom"),
        ],
    )
    def test_a_200_that_is_no_completion(self, body: bytes, words: str) -> None:
        with pytest.raises(ivl.ServerError, match=words):
            decoded(body)

    def test_parts_of_text_are_joined(self) -> None:
        document = completion()
        document["choices"][0]["message"]["content"] = [
            {"type": "text", "text": "A "},
            {"text": "dog"},
        ]
        assert decoded(document).text == "A dog"

    @pytest.mark.parametrize(
        ("tokens", "words"),
        [(1024, "cut at 1024 tokens"), (300, r"of 1024 asked for: the context is full")],
    )
    def test_a_cut_answer_is_flagged(self, tokens: int, words: str) -> None:
        found = decoded(completion(finish="length", completion_tokens=tokens)).warnings
        assert words in found[0]

    @pytest.mark.parametrize("unit", ["again ", "the cat sat. ", "喵", "a b c d e f g h i j k "])
    def test_a_loop_is_flagged(self, unit: str) -> None:
        looping = "A picture of " + unit * 60
        for cut in (0, 1, 3):
            assert repetition(looping[: len(looping) - cut])
        assert "repeats itself" in decoded(completion(looping)).warnings[0]

    @pytest.mark.parametrize("text", ["", "no no no", "----------" * 9, "One. Two. Three. " * 2])
    def test_ordinary_text_is_no_loop(self, text: str) -> None:
        assert not repetition(text)

    def test_models(self) -> None:
        body = json.dumps({"data": [{"id": "a"}, {"id": 3}, "b"]}).encode()
        assert decode_models(HttpResponse(200, {}, body)) == [{"id": "a"}]
        with pytest.raises(ivl.ServerError, match="no list of models"):
            decode_models(HttpResponse(200, {}, b"{}"))


ERRORS: list[tuple[int, object, type[ivl.ServerError], str]] = [
    (401, {"detail": {"error": {"message": "Please request with valid api key!", "code": "invalid_api_key"}}},
     ivl.AuthenticationError, "valid api key"),
    (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404},
     ivl.RequestRejectedError, "does not exist"),
    (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "missing"}]},
     ivl.RequestRejectedError, "body.messages: field required"),
    (400, {"error": {"code": 400, "message": "the request exceeds the available context size",
                     "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096}},
     ivl.ContextLengthError, "context size"),
    (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, "
           "you requested 9000 tokens in the messages", "code": 400}, ivl.ContextLengthError, "4096"),
    (403, {"error": "forbidden"}, ivl.AuthenticationError, "forbidden"),
    (413, "Request Entity Too Large", ivl.RequestRejectedError, "Too Large"),
    (429, {"error": {"message": "Rate limit"}}, ivl.RateLimitedError, "Rate limit"),
    (500, "Internal Server Error", ivl.EngineError, "Internal Server Error"),
    (502, "<html><head><style>b {}</style></head><body><b>502</b> Bad</body></html>",
     ivl.ServerUnavailableError, "502 Bad"),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
     ivl.ServerUnavailableError, "Loading model"),
    (418, b"", ivl.RequestRejectedError, "an empty body"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "words"), ERRORS)
def test_every_shape_of_error_is_read(
    status: int, body: object, kind: type[ivl.ServerError], words: str
) -> None:
    raw = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    error = error_from_response(HttpResponse(status, {"retry-after": "7"}, raw))
    assert type(error) is kind
    assert words in str(error)
    assert (error.status, error.retry_after) == (status, 7.0)
    assert error.hint
    if isinstance(error, ivl.ContextLengthError):
        assert (error.needed, error.available) == (9000, 4096)


@pytest.mark.parametrize("value", [None, "", "soon", "-1", "Wed, 99 Foo", "9" * 40])
def test_an_unreadable_retry_after_is_none(value: str | None) -> None:
    assert seconds(value) is None


class TestEvents:
    @given(st.lists(st.integers(1, 30), max_size=40), st.sampled_from(["\n", "\r\n", "\r"]))
    def test_any_split_gives_the_same_events(self, cuts: list[int], newline: str) -> None:
        text = ": ping\n\ndata: é☃\ndata:  two\n\nevent: x\ndata\n\nid: 3\n\nretry: 1\ndata: 喵\n\n"
        raw, decoder, events = text.replace("\n", newline).encode(), EventDecoder(), []
        for cut in [*cuts, len(raw)]:
            chunk, raw = raw[:cut], raw[cut:]
            events += list(decoder.feed(chunk))
        events += list(decoder.feed(b"", final=True))
        assert [event.data for event in events] == ["é☃\n two", "", "喵"]

    def collect(self, *chunks: bytes) -> tuple[str, ivl.Description]:
        stream = CompletionStream(make_call())
        text = "".join(piece for chunk in chunks for piece in stream.feed(chunk))
        return text, stream.finish()

    def test_a_stream(self) -> None:
        text, description = self.collect(b": keep-alive\n\n", *stream_events("A ", "cat."))
        assert text == description.text == "A cat."
        assert description.seen == "confirmed"
        assert description.usage.completion_tokens == 2

    def test_a_stream_without_its_end(self) -> None:
        with pytest.raises(ivl.EngineError, match="ended early, after 6 characters"):
            self.collect(*stream_events("A ", "cat.", done=False))

    def test_a_stream_about_another_picture(self) -> None:
        with pytest.raises(ivl.ImageNotSeenError):
            self.collect(*stream_events("Black.", prompt_tokens=300))

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            ('{"error": {"message": "boom", "code": 500}}', ivl.EngineError),
            ('{"object": "error", "message": "boom", "code": 429}', ivl.RateLimitedError),
            ("not json boom", ivl.ServerError),
            ('["boom"]', ivl.ServerError),
        ],
    )
    def test_an_error_in_the_stream(self, data: str, kind: type[ivl.ServerError]) -> None:
        with pytest.raises(kind, match="boom"):
            self.collect(f"data: {data}\n\n".encode())
