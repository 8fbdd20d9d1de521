"""Errors inside a 200, and every wording of a full context."""

from __future__ import annotations

import json
from typing import Any

import pytest

import internvl_modal as ivl
from internvl_modal.protocol.completion_stream import CompletionStream
from internvl_modal.protocol.error_responses import error_from_response
from internvl_modal.protocol.http import HttpResponse
from tests.loopback import Loopback, Reply
from tests.servers import answers
from tests.test_wire import decoded, make_call

KINDS: list[tuple[Any, type[ivl.ServerError], int]] = [
    ({"error": {"code": 401, "message": "No auth"}}, ivl.AuthenticationError, 401),
    (answers.OPENROUTER_NO_CREDIT, ivl.RequestRejectedError, 402),
    ({"error": {"code": 403, "message": "Not yours"}}, ivl.AuthenticationError, 403),
    (answers.OPENROUTER_FLAGGED, ivl.RequestRejectedError, 403),
    # LMDeploy 0.18: a session or a piece of its cache that another request holds
    ({"message": "The request conflicts with existing server state.", "code": 409,
      "type": "invalid_request_error", "object": "error"}, ivl.ServerUnavailableError, 409),
    ({"error": {"code": 404, "message": "No such model"}}, ivl.RequestRejectedError, 404),
    (answers.OPENROUTER_LIMITED, ivl.RateLimitedError, 429),
    ({"error": {"code": "429", "message": "Slow down"}}, ivl.RateLimitedError, 429),
    ({"error": {"code": 500, "message": "CUDA out of memory"}}, ivl.EngineError, 500),
    ({"error": {"code": 502, "message": "Provider down"}}, ivl.ServerUnavailableError, 502),
    ({"error": {"code": 529, "message": "Overloaded"}}, ivl.ServerUnavailableError, 529),
    ({"object": "error", "message": "boom", "code": 429}, ivl.RateLimitedError, 429),
    ({"object": "error", "message": "boom", "code": 400}, ivl.RequestRejectedError, 400),
    ({"message": "boom", "code": 503}, ivl.ServerUnavailableError, 503),
    ({"error": {"error": {"code": 429, "message": "boom"}}}, ivl.RateLimitedError, 429),
    ({"detail": {"error": {"code": "invalid_api_key", "message": "boom"}}},
     ivl.AuthenticationError, 401),
    ({"error": {"type": "rate_limit_exceeded", "message": "boom", "code": None}},
     ivl.RateLimitedError, 429),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "boom"}},
     ivl.ServerUnavailableError, 503),
    ([{"error": {"code": 503, "message": "boom", "status": "UNAVAILABLE"}}],
     ivl.ServerUnavailableError, 503),
    ({"error": {"status": "RESOURCE_EXHAUSTED", "message": "boom"}}, ivl.RateLimitedError, 429),
    ({"error": "model 'x' not found"}, ivl.RequestRejectedError, 404),
    (answers.TGI_OVERLOADED, ivl.ServerUnavailableError, 503),
    ({"error": "boom"}, ivl.EngineError, 200),
    ({"code": 429, "msg": "slow down", "data": None}, ivl.RateLimitedError, 429),
    ({"status": "error", "message": "boom"}, ivl.EngineError, 200),
    ({"message": "Unauthorized"}, ivl.AuthenticationError, 401),
    ({"error": True, "message": "boom", "code": 429}, ivl.RateLimitedError, 429),
    ({"errors": [{"message": "boom", "status": 429}]}, ivl.RateLimitedError, 429),
    ({"error": [{"message": "boom", "code": 503}]}, ivl.ServerUnavailableError, 503),
    ({"error": {"message": "boom", "code": 429}, "choices": [{"message": {"content": "x"}}]},
     ivl.RateLimitedError, 429),
    ({"error": {"message": "boom"}, "choices": []}, ivl.EngineError, 200),
    ({"choices": [{"message": None, "error": {"code": 502, "message": "gone"}}]},
     ivl.ServerUnavailableError, 502),
]  # fmt: skip


@pytest.mark.parametrize(("document", "kind", "status"), KINDS)
@pytest.mark.parametrize("way", ["plain", "event", "body"])
def test_an_error_inside_a_200(
    document: Any, kind: type[ivl.ServerError], status: int, way: str
) -> None:
    data = json.dumps(document).encode()
    with pytest.raises(kind) as caught:
        if way == "plain":
            decoded(data)
        elif way == "body" or isinstance(document, list):
            list(CompletionStream(make_call()).feed(data))
        else:
            list(CompletionStream(make_call()).feed(b"data: " + data + b"\n\n"))
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert "without words" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "document", "seconds"),
    [
        ({"retry-after": "7"}, {"error": {"code": 429, "message": "x"}}, 7),
        ({}, answers.OPENROUTER_LIMITED, 3),
        ({}, {"error": {"code": 429, "message": "x", "retry_after": 2.5}}, 2.5),
        ({}, {"error": {"code": 429, "message": "x"}}, None),
    ],
)
def test_how_long_to_wait(headers: Any, document: Any, seconds: float | None) -> None:
    body = json.dumps(document).encode()
    assert error_from_response(HttpResponse(429, headers, body)).retry_after == seconds
    stream = CompletionStream(make_call())
    stream.opened(HttpResponse(200, headers))
    with pytest.raises(ivl.RateLimitedError) as caught:
        list(stream.feed(b"data: " + body + b"\n\n"))
    assert caught.value.retry_after == seconds


def test_what_is_over_is_not_asked_again(loopback: Loopback) -> None:
    loopback.will(Reply(body=answers.OPENROUTER_NO_CREDIT))
    with ivl.Client(loopback.url, model="m") as client, pytest.raises(ivl.RequestRejectedError):
        client.chat([{"role": "user", "text": "Hi"}])
    assert len(loopback.chats) == 1
    quota = {"error": {"message": "You exceeded your quota", "type": "insufficient_quota"}}
    error = error_from_response(HttpResponse(429, {}, json.dumps(quota).encode()))
    assert not error.retryable
    assert not error_from_response(HttpResponse(501, {}, b"")).retryable


def test_what_passes_is_asked_again(loopback: Loopback) -> None:
    limited = Reply(body={"error": {"code": 429, "message": "x"}})
    conflict = Reply(409, {"message": "The request conflicts with existing server state."})
    loopback.will(limited, conflict, Reply(body=answers.chat()))
    with ivl.Client(loopback.url, model="m", retry=ivl.Retry(initial=0)) as client:
        assert client.chat([{"role": "user", "text": "Hi"}]).text == "A cat."


FULL: list[tuple[str, int | None, int | None]] = [
    # LMDeploy 0.18 and its engine
    ("Input length (10180) must be smaller than the model context length (8192).", 10180, 8192),
    ("The request exceeds the model context length.", None, None),
    # vLLM 0.32, 0.1x, 0.5 to 0.10, 0.2
    ("Input length (20085) exceeds model's maximum context length (16384).", 20085, 16384),
    ("This model's maximum context length is 16384 tokens. However, your prompt contains at least "
     "16385 input tokens, which exceeds this limit even without any output tokens. Please reduce "
     "the length of the input prompt. (parameter=input_tokens, value=16385)", 16385, 16384),
    ("This model's maximum context length is 16384 tokens. However, your prompt contains 90000 "
     "characters (more than 65536 characters, which is the upper bound for 16384 input tokens). "
     "Please reduce the length of the input prompt.", None, 16384),
    ("You passed 6001 input tokens and requested 200 output tokens. However, the model's context "
     "length is only 4096 tokens, resulting in a maximum input length of 3896 tokens. Please reduce "
     "the length of the input prompt. (parameter=input_tokens, value=6001)", 6001, 4096),
    ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", None, None),
    ("This model's maximum context length is 4096 tokens. However, you requested 9000 tokens "
     "(7976 in the messages, 1024 in the completion). Please reduce the length of the messages or "
     "completion.", 9000, 4096),
    ("This model's maximum context length is 4096 tokens. However, you requested 1024 output tokens "
     "and your prompt contains at least 7976 input tokens, for a total of at least 9000 tokens. "
     "Please reduce the length of the input prompt.", 9000, 4096),
    ("The decoder prompt (length 6012) is longer than the maximum model length of 4096. Make sure "
     "that `max_model_len` is no smaller than the number of text tokens.", 6012, 4096),
    ("The decoder prompt (length 4096) plus the number of requested output tokens (at least 1) is "
     "longer than the maximum model length of 4096.", 4096, 4096),
    ("The prompt (total length 6012) is too long to fit into the model (context length 4096). Make "
     "sure that `max_model_len` is no smaller.", 6012, 4096),
    ("Input prompt (6012 tokens) is too long and exceeds limit of 4096", 6012, 4096),
    # SGLang
    ("The input (6012 tokens) is longer than the model's context length (4096 tokens).",
     6012, 4096),
    ("Requested token count exceeds the model's maximum context length of 4096 tokens. You "
     "requested a total of 7036 tokens: 6012 tokens from the input messages and 1024 tokens for "
     "the completion. Please reduce the number of tokens.", 7036, 4096),
    ("Input length (6012 tokens) exceeds the maximum allowed length (4095 tokens). Use a shorter "
     "input or enable --allow-auto-truncate.", 6012, 4095),
    ("Multimodal prompt is too long after expanding multimodal tokens. After expanding "
     "len(req.origin_input_ids_unpadded)=27 => 6012 >= 4090.", 6012, 4090),
    # llama.cpp, old and new
    ("request (9032 tokens) exceeds the available context size (4096 tokens), try increasing it",
     9032, 4096),
    ("the request exceeds the available context size. try increasing the context size or enable "
     "context shift", None, None),
    ("Input prompt is too big compared to KV size. Please try increasing KV size.", None, None),
    ("the slot context is full", None, None),
    # TGI, Ollama, LM Studio
    (answers.TGI_FULL["error"], 9032, 4096),
    ("Input validation error: `inputs` must have less than 4096 tokens. Given: 6012", 6012, 4096),
    (answers.OLLAMA_FULL["error"]["message"], None, None),  # type: ignore[index]
    ("the input length exceeds the context length", None, None),
    (answers.LMSTUDIO_FULL["error"], 9032, 4096),
    ("The number of tokens to keep from the initial prompt is greater than the context length. Try "
     "to load the model with a larger context length", None, None),
    # hosts behind routers
    ("This model's maximum context length is 128000 tokens. However, your messages resulted in "
     "130000 tokens. Please reduce the length of the messages.", 130000, 128000),
    ("This endpoint's maximum context length is 65536 tokens. However, you requested about 90000 "
     "tokens (89000 of text input, 1000 in the output).", 90000, 65536),
    ("prompt is too long: 213462 tokens > 200000 maximum", 213462, 200000),
    ("The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)",
     1196265, 1048575),
    ("Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum "
     "context length", 40000, 32768),
    ("Prompt has 5,958,968 tokens, but the configured context size is 256,000 tokens",
     5958968, 256000),
    ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
     537812, 131072),
    ("Input length 131393 exceeds the maximum allowed input length of 131040 tokens.",
     131393, 131040),
]  # fmt: skip


@pytest.mark.parametrize(("words", "needed", "available"), FULL)
@pytest.mark.parametrize("shape", ["flat", "nested", "detail", "string", "within"])
def test_every_wording_of_a_full_context(
    words: str, needed: int | None, available: int | None, shape: str
) -> None:
    document: Any = {
        "flat": {"object": "error", "message": words, "code": 400},
        "nested": {"error": {"message": words, "type": "BadRequestError", "code": 400}},
        "detail": {"detail": words},
        "string": {"error": words},
        "within": {"error": {"message": words, "code": 400}},
    }[shape]
    body = json.dumps(document).encode()
    if shape == "within":
        with pytest.raises(ivl.ContextLengthError) as caught:
            decoded(body)
        error: ivl.ServerError = caught.value
    else:
        error = error_from_response(HttpResponse(400, {}, body))
    assert isinstance(error, ivl.ContextLengthError)
    assert (error.needed, error.available) == (needed, available)
    assert not error.retryable


def test_the_words_of_the_provider_behind_a_router() -> None:
    """openrouter.ai/docs/api, "Provider errors": the raw error is in the metadata."""
    words = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"
    for raw in (json.dumps({"error": {"message": words}}), {"error": {"message": words}}):
        metadata = {"provider_name": "x", "raw": raw}
        error = {"message": "Provider returned error", "code": 400, "metadata": metadata}
        with pytest.raises(ivl.ContextLengthError) as caught:
            decoded(json.dumps({"error": error}).encode())
        assert (caught.value.needed, caught.value.available) == (9000, 4096)


def test_a_code_tells_a_full_context_too() -> None:
    body = b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'
    assert isinstance(error_from_response(HttpResponse(400, {}, body)), ivl.ContextLengthError)


@pytest.mark.parametrize(
    "words",
    ["Failed to load image: image file is truncated", "schema not supported", "max_tokens is odd"],
)
def test_other_refusals_are_not_about_the_context(words: str) -> None:
    error = error_from_response(HttpResponse(400, {}, json.dumps({"message": words}).encode()))
    assert type(error) is ivl.RequestRejectedError
