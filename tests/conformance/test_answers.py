"""What LMDeploy answers, good and bad, as the client understands it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.backends.lmdeploy import LMDeployBackend
from internvl_modal.errors import (
    AuthenticationError,
    ContextLengthError,
    DeadlineExceededError,
    EngineError,
    ImageNotSeenError,
    RequestRejectedError,
    ServerUnavailableError,
)
from internvl_modal.protocol.error_responses import error_from_response
from internvl_modal.protocol.http import HttpResponse
from tests.conformance.environment import OLD
from tests.conformance.serving import SESSION_LEN, Front

PICTURE = Image.new("RGB", (896, 448), "red")
LARGE = Image.new("RGB", (4000, 3000), "red")
"""13 tiles, 3,328 tokens; the servers' session is 8,192."""


def ask(client: ivl.Client, pictures: list[Image.Image], streamed: bool) -> None:
    if streamed:
        list(client.stream(pictures))
    else:
        client.describe(pictures)


def test_a_plain_answer(lmdeploy: Front) -> None:
    lmdeploy.next(text="Zwei Bären 🐻🐻, 两只熊。")
    answer = lmdeploy.client.describe(PICTURE)
    assert answer.text == "Zwei Bären 🐻🐻, 两只熊。"
    assert answer.model == lmdeploy.model
    assert answer.finish_reason == "stop"
    assert answer.usage.prompt_tokens == lmdeploy.seen().prompt_tokens
    assert answer.usage.completion_tokens == len(answer.text.encode())
    assert answer.seen == "confirmed"
    assert answer.warnings == ()


def test_a_stream(lmdeploy: Front) -> None:
    text = "Zwei Bären 🐻🐻, 两只熊。"
    lmdeploy.next(text=text, one_by_one=True)
    stream = lmdeploy.client.stream(PICTURE)
    pieces = list(stream)
    assert "".join(pieces) == text
    assert len(pieces) > 5
    answer = stream.description
    assert answer.text == text
    assert answer.finish_reason == "stop"
    assert answer.usage.prompt_tokens == lmdeploy.seen().prompt_tokens
    assert answer.usage.completion_tokens == len(text.encode())
    assert answer.seen == "confirmed"


def test_an_answer_cut_at_max_tokens(lmdeploy: Front) -> None:
    lmdeploy.next(text="A long answer.", times=2)
    answer = lmdeploy.client.describe(PICTURE, max_tokens=6)
    assert (answer.text, answer.finish_reason) == ("A long", "length")
    assert answer.warnings == ("the answer was cut at 6 tokens",)
    stream = lmdeploy.client.stream(PICTURE, max_tokens=6)
    assert "".join(stream) == "A long"
    assert stream.description.finish_reason == "length"


def test_an_answer_cut_by_the_context_is_said_so(lmdeploy: Front) -> None:
    """0.7.3 lowers max_tokens without a word to what is left, or to 128; TurboMind always does."""
    lmdeploy.next(text="0123456789" * 200)
    answer = lmdeploy.client.describe([LARGE, LARGE], max_tokens=1900)
    left = SESSION_LEN - answer.usage.prompt_tokens
    handed = lmdeploy.seen().sampling["max_new_tokens"]
    assert handed == (left if lmdeploy.version == OLD else 1900)
    assert answer.finish_reason == "length"
    (warning, *_) = answer.warnings
    assert (
        warning == f"the answer was cut at {left} tokens (of 1900 asked for: the context is full)"
    )


class Spoiling(httpx.HTTPTransport):
    """A proxy that lets every request through with the beginning of its picture broken."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read().replace(b";base64,", b";base64,AAAA")
        headers = {k: v for k, v in request.headers.items() if k != "content-length"}
        spoilt = httpx.Request(request.method, request.url, headers=headers, content=body)
        return super().handle_request(spoilt)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_picture_that_lmdeploy_could_not_load(old: Front, streamed: bool) -> None:
    """0.7.3 says 200 and describes a black square; its token count gives it away."""
    with (
        httpx.Client(transport=Spoiling()) as spoiling,
        ivl.Client(base_url=old.url, api_key=old.key, http_client=spoiling) as client,
        pytest.raises(ImageNotSeenError, match="the server did not see the picture") as caught,
    ):
        ask(client, [LARGE], streamed)
    seen = old.seen()
    assert seen.images[0].size == (32, 32)
    assert (caught.value.expected, caught.value.actual) == (3328, seen.prompt_tokens)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_picture_that_lmdeploy_refuses(new: Front, streamed: bool) -> None:
    """0.18 says 400 before it answers, streamed or not."""
    with (
        httpx.Client(transport=Spoiling()) as spoiling,
        ivl.Client(base_url=new.url, api_key=new.key, http_client=spoiling) as client,
        pytest.raises(RequestRejectedError, match="Request preprocessing failed") as caught,
    ):
        ask(client, [LARGE], streamed)
    assert caught.value.status == 400
    assert new.reports() == []


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_beyond_the_context(lmdeploy: Front, streamed: bool) -> None:
    """0.7.3 says 200, no text, "length"; 0.18 says 400 and both numbers."""
    with pytest.raises(ContextLengthError) as caught:
        ask(lmdeploy.client, [LARGE] * 3, streamed)
    assert caught.value.status == (200 if lmdeploy.version == OLD else 400)
    assert lmdeploy.reports() == []


@pytest.mark.parametrize("tokens", [0, 4])
def test_a_failing_engine(lmdeploy: Front, tokens: int) -> None:
    """0.7.3 says 200, "internal error happened", "error"; 0.18 says 500, in a stream too."""
    lmdeploy.next(text="A picture.", fail_after=tokens, times=2)
    said = "internal error happened" if lmdeploy.version == OLD else "internal server error"
    for streamed in (False, True):
        with pytest.raises(EngineError, match=said) as caught:
            ask(lmdeploy.client, [PICTURE], streamed)
        assert caught.value.retryable


def test_a_failing_engine_is_asked_again(lmdeploy: Front) -> None:
    lmdeploy.next(fail_after=0)
    retry = ivl.Retry(attempts=2, initial=0.01)
    with ivl.Client(base_url=lmdeploy.url, api_key=lmdeploy.key, retry=retry) as client:
        answer = client.describe(PICTURE)
    assert answer.text == "A picture."
    assert answer.timings.attempts == 2


@pytest.mark.parametrize("key", ["wrong", None])
def test_a_wrong_key(lmdeploy: Front, key: str | None) -> None:
    said = "Please request with valid api key" if lmdeploy.version == OLD else "Unauthorized"
    with ivl.Client(base_url=lmdeploy.url, api_key=key) as client:
        for ask in (client.models, lambda: client.describe(PICTURE)):
            with pytest.raises(AuthenticationError, match=said):
                ask()


def test_an_unknown_model(lmdeploy: Front) -> None:
    with (
        ivl.Client(base_url=lmdeploy.url, api_key=lmdeploy.key, model="other") as client,
        pytest.raises(RequestRejectedError, match=r"The model .other. does not exist") as caught,
    ):
        client.describe(PICTURE)
    assert caught.value.status == 404


REFUSED: list[tuple[dict[str, object], tuple[int, str], tuple[int, str]]] = [
    ({"model": None}, (422, "body.model: "), (400, "model: ")),
    ({"top_p": 0}, (400, "The top_p `0.0` must be in"), (400, "The top_p 0.0 must be in")),
    (
        {"temperature": 3},
        (400, "The temperature `3.0` must be in"),
        (400, "The temperature 3.0 must be in"),
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}},
        (422, "body.response_format"),
        (400, "response_format"),
    ),
]


@pytest.mark.parametrize(("document", "by_old", "by_new"), REFUSED)
def test_what_lmdeploy_refuses(
    lmdeploy: Front,
    document: dict[str, object],
    by_old: tuple[int, str],
    by_new: tuple[int, str],
) -> None:
    """The client never sends these; what LMDeploy says to them is read all the same."""
    status, message = by_old if lmdeploy.version == OLD else by_new
    reply = lmdeploy.ask("?", **document)
    assert reply.status_code == status
    error = error_from_response(HttpResponse(status, reply.headers, reply.content))
    assert type(error) is RequestRejectedError
    assert message in str(error)


def test_time_is_up(lmdeploy: Front) -> None:
    lmdeploy.next(text="slow", token_seconds=1, times=2)
    with pytest.raises(DeadlineExceededError):
        lmdeploy.client.describe(PICTURE, timeout=0.5)
    with pytest.raises(DeadlineExceededError):
        list(lmdeploy.client.stream(PICTURE, timeout=0.5))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_dies_while_it_answers(
    executable: str, model_folder: Path, streamed: bool
) -> None:
    backend = LMDeployBackend(
        model_folder, executable=executable, startup_timeout=120, max_batch_size=1
    )
    with ivl.Client(backend, retry=ivl.Retry(attempts=1)) as client:
        front = Front.of(backend, client)
        front.next(text="A picture.", exit_after=3, one_by_one=True)
        with pytest.raises(EngineError if streamed else (EngineError, ServerUnavailableError)):
            ask(client, [PICTURE], streamed)
