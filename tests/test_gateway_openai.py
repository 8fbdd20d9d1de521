"""The gateway as the ``openai`` package finds it, in front of a server on loopback."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image, ImageDraw
from starlette.applications import Starlette
from starlette.routing import Mount

from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.sync import Client
from internvl_modal.deployment.served_app import FixedBackend
from internvl_modal.errors import ImageNotSeenError
from internvl_modal.gateway import create_app
from internvl_modal.transport.retry import Retry
from tests.asgi import serving
from tests.deploy.test_container import OPENAI_SAMPLE
from tests.loopback import Heard, Loopback, Reply, completion, event, models_list, stream_events
from tests.test_gateway import BEARER, KEY, picture

MODEL = "internvl2_5-78b"


def data_url(width: int = 900, height: int = 600) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture(width, height)).decode()}"


def ask(*urls: str, text: str = "What is it?", **image_url: Any) -> Any:
    """The messages of one question about pictures."""
    images = [{"type": "image_url", "image_url": {"url": url, **image_url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *images]}]


@pytest.fixture
def url(loopback: Loopback) -> Iterator[str]:
    """The gateway's base URL for the ``openai`` package."""
    loopback.models = Reply(body=models_list("lmdeploy", MODEL))
    client = AsyncClient(FixedBackend(loopback.url, "upstream-key", MODEL), retry=Retry(attempts=1))
    with serving(create_app(client, api_key=KEY, max_body=1_000_000)) as origin:
        yield f"{origin}/v1"


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(api_key=KEY, base_url=url, max_retries=0) as made:
        yield made


def test_the_older_sample(url: str, loopback: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    code = OPENAI_SAMPLE.replace("'URL'", repr(url)).replace("'KEY'", repr(KEY))
    names: dict[str, Any] = {}
    exec(code.replace("https://path/to/your/image.jpg", data_url()), names)
    names["client"].close()
    assert capsys.readouterr().out == "A cat.\n"
    sent = loopback.chats[0]
    assert (sent.json["temperature"], sent.json["top_p"]) == (0.7, 0.9)
    assert "describe this image in detail" in str(sent.json["messages"])
    assert sent.headers["authorization"] == "Bearer upstream-key"


def test_models(client: OpenAI, loopback: Loopback) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == (MODEL, "internvl-modal")
    assert not loopback.heard, "its name is known, as on Modal"


def test_an_answer_with_its_proof(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ask(data_url()), extra_headers={"X-Request-ID": "mine"}
    )
    assert answer.choices[0].message.content == "A cat."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (5000, 5003)
    assert (answer.id, answer._request_id, answer.model) == ("chatcmpl-mine", "mine", MODEL)
    assert answer.model_extra == {"seen": "confirmed", "warnings": []}


def test_warnings(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion("A", finish="length")))
    answer = client.chat.completions.create(model=MODEL, messages=ask(data_url()), max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.model_extra
    assert answer.model_extra["warnings"] == ["the answer was cut at 3 tokens"]


def test_several_turns_with_two_pictures(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion(prompt_tokens=10_000)))
    messages = [{"role": "developer", "content": "Be brief."}, *ask(data_url(), text="And this?")]
    first = client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
    messages += [first.choices[0].message, *ask(data_url(600, 900), text="Which is taller?")]
    second = client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
    assert second.model_extra
    assert second.model_extra["seen"] == "confirmed"
    sent = loopback.chats[-1].json["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert (sent[0]["content"], sent[2]["content"]) == ("Be brief.", "A cat.")
    assert sent[3]["content"][0]["text"].endswith("Which is taller?")


def test_the_answers_own_message_is_sent_back(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion(prompt_tokens=10_000)))
    first = client.chat.completions.create(model=MODEL, messages=ask(data_url()))
    echoed = first.choices[0].message.model_dump()
    echoed |= {"tool_calls": [], "audio": None, "annotations": [{"type": "url_citation"}]}
    echoed |= {"reasoning_content": "Fur.", "refusal": "", "name": "model"}
    messages: Any = [*ask(data_url()), echoed, {**ask(text="Sure?")[0], "name": "ann"}]
    client.chat.completions.create(model=MODEL, messages=messages)
    sent = loopback.chats[-1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert [message.keys() for message in sent] == [{"role", "content"}] * 3
    assert sent[1]["content"] == "A cat."


def test_texts_of_one_message_are_joined(client: OpenAI, loopback: Loopback) -> None:
    content: Any = [{"type": "text", "text": "One."}, *ask(data_url(), text="Two.")[0]["content"]]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert loopback.chats[0].json["messages"][-1]["content"][0]["text"].endswith("One.\nTwo.")


def test_options_reach_the_model(client: OpenAI, loopback: Loopback) -> None:
    client.chat.completions.create(
        model="",
        messages=[{"role": "user", "content": "Hello."}],
        max_tokens=5,
        max_completion_tokens=7,
        seed=3,
        stop=["END"],
        extra_body={"top_k": 4, "repetition_penalty": 1.2},
    )
    sent = loopback.chats[0].json
    wanted = {"max_tokens": 7, "seed": 3, "stop": ["END"], "repetition_penalty": 1.2}
    assert {name: sent[name] for name in wanted} == wanted
    assert sent["model"] == MODEL


@pytest.mark.parametrize(
    ("details", "tiles"),
    [([None], 12), (["low"], 6), (["high"], 24), (["auto"], 2), (["low", "high"], 24), ([3, 5], 5)],
)
def test_the_finest_detail_holds_for_all_pictures(
    client: OpenAI, loopback: Loopback, details: list[Any], tiles: int
) -> None:
    loopback.will(Reply(body=completion(prompt_tokens=40_000)))
    content = [ask(data_url(900, 450), detail=detail)[0]["content"][1] for detail in details]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    sent = loopback.chats[0].json["messages"][-1]["content"]
    assert {part["image_url"]["max_dynamic_patch"] for part in sent[1:]} == {tiles}


NOTHING: dict[str, Any] = {
    "user": "me",
    "metadata": {"a": "b"},
    "n": 1,
    "logprobs": False,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "tools": [],
    "tool_choice": "auto",
    "stop": None,
}


def test_fields_that_change_nothing_are_accepted(client: OpenAI, loopback: Loopback) -> None:
    client.chat.completions.create(model=MODEL, messages=ask(data_url()), **NOTHING)
    assert not loopback.chats[0].json.keys() & NOTHING.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("presence_penalty", 0.5),
        ("echo", True),
        ("made_up", 1),
    ],
)
def test_fields_that_cannot_be_honoured_are_refused(
    client: OpenAI, loopback: Loopback, name: str, value: object
) -> None:
    with pytest.raises(openai.BadRequestError, match=name) as caught:
        client.chat.completions.create(
            model=MODEL, messages=ask(data_url()), extra_body={name: value}
        )
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
    assert not loopback.heard


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tool_calls", [{"id": "1", "type": "function", "function": {"name": "f"}}]),
        ("audio", {"id": "audio_1"}),
        ("made_up", 1),
    ],
)
def test_fields_of_a_message_that_cannot_be_honoured_are_refused(
    client: OpenAI, loopback: Loopback, name: str, value: object
) -> None:
    turn: Any = {"role": "assistant", "content": "A cat.", name: value}
    with pytest.raises(openai.BadRequestError, match="is not supported; leave it out") as caught:
        client.chat.completions.create(model=MODEL, messages=[turn, *ask(data_url())])
    assert caught.value.param == f"messages.0.{name}"
    assert caught.value.code == "unsupported_parameter"
    assert not loopback.heard


def test_as_many_pictures_as_are_allowed(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion(prompt_tokens=100_000)))
    client.chat.completions.create(model=MODEL, messages=ask(*[data_url(2, 2)] * 16))
    assert len(loopback.chats[0].json["messages"][-1]["content"]) == 17


def test_a_range_names_its_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="less than or equal to 2") as caught:
        client.chat.completions.create(model=MODEL, messages=ask(data_url()), temperature=9)
    assert caught.value.param == "temperature"
    assert "DescribeOptions" not in caught.value.message


@pytest.mark.parametrize(
    ("messages", "options", "reason"),
    [
        ([], {}, r"messages=\[\]: .* at least 1"),
        ([{"role": "assistant", "content": "Hello."}], {}, "end with one of role 'user'"),
        ([{"role": "tool", "content": "4"}], {}, "role"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], {}, "input_audio"),
        (ask(data_url(), max_dynamic_patch=3), {}, "max_dynamic_patch"),
        (ask(data_url(), detail="huge"), {}, "detail"),
        ([{**ask(data_url())[0], "role": "system"}, *ask()], {}, "'system' cannot"),
        (ask(*[data_url(2, 2)] * 17), {}, "17 pictures are more than 16"),
        (ask(data_url()), {"temperature": 9}, "temperature"),
        (ask(data_url()), {"max_completion_tokens": 0}, "max_completion_tokens"),
        (ask("data:image/png;base64,AAAA"), {}, "not a picture"),
        (ask("data:image/png;base64,****"), {}, "base64"),
        (ask("data:image/svg+xml;base64,PHN2Zy8+"), {}, "SVG"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_named_and_the_model_not_asked(
    client: OpenAI,
    loopback: Loopback,
    messages: Any,
    options: dict[str, Any],
    reason: str,
    stream: bool,
) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        client.chat.completions.create(model=MODEL, messages=messages, stream=stream, **options)
    assert not loopback.heard


@pytest.mark.parametrize("address", ["{}", "file://{}", " {}", "file:{}", "~/p.png", ""])
def test_no_file_of_the_server_is_read(
    client: OpenAI, loopback: Loopback, tmp_path: Path, address: str
) -> None:
    (tmp_path / "p.png").write_bytes(picture())
    with pytest.raises(openai.BadRequestError, match="url"):
        client.chat.completions.create(
            model=MODEL, messages=ask(address.format(tmp_path / "p.png"))
        )
    assert not loopback.heard


def test_no_private_address_is_fetched(client: OpenAI, loopback: Loopback) -> None:
    with pytest.raises(openai.BadRequestError, match="loopback address") as caught:
        client.chat.completions.create(model=MODEL, messages=ask(f"{loopback.origin}/p.png"))
    assert caught.value.code == "invalid_image"
    assert "send it in the request itself" in caught.value.message
    assert "allow_private_urls" not in caught.value.message, "which no caller can pass"
    assert not loopback.heard


def test_below_a_prefix_what_is_wrong_is_400_too(loopback: Loopback) -> None:
    inner = create_app(AsyncClient(FixedBackend(loopback.url, "k", MODEL)), api_key=KEY)
    outer = Starlette(routes=[Mount("/gw", inner)])
    with (
        serving(outer) as origin,
        OpenAI(api_key=KEY, base_url=f"{origin}/gw/v1", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model=MODEL, messages=ask(data_url()), temperature=9)
        with pytest.raises(openai.BadRequestError, match="not a picture"):
            client.chat.completions.create(model=MODEL, messages=ask("data:image/png;base64,AAAA"))
        assert httpx.post(f"{origin}/gw/", json={}, headers=BEARER, timeout=60).status_code == 422


def test_a_model_that_is_not_served(client: OpenAI, loopback: Loopback) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4o") as caught:
        client.chat.completions.create(model="gpt-4o", messages=ask(data_url()))
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert not loopback.chats


def test_only_the_model_that_would_answer_is_served(loopback: Loopback) -> None:
    loopback.models = Reply(body=models_list("vllm", "internvl-a", "internvl-b"))
    app = create_app(AsyncClient(loopback.url, model="internvl-a"), api_key=KEY)
    with serving(app) as origin, OpenAI(api_key=KEY, base_url=f"{origin}/v1") as client:
        assert [model.id for model in client.models.list().data] == ["internvl-a"]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="internvl-b", messages=ask(data_url()))


@pytest.mark.parametrize("key", ["wrong", "upstream-key"])
def test_a_wrong_key(url: str, loopback: Loopback, key: str) -> None:
    with OpenAI(api_key=key, base_url=url) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model=MODEL, messages=ask(data_url()))
    assert not loopback.heard


def test_a_body_over_the_limit(client: OpenAI, loopback: Loopback) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than") as caught:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x" * 1_100_000}]
        )
    assert caught.value.status_code == 413
    assert not loopback.heard


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "kind", "retry_after"),
    [
        (Reply(503, "", {"Retry-After": "7"}), openai.InternalServerError, "7"),
        (Reply(429, {"message": "no"}, {"Retry-After": "3"}), openai.RateLimitError, "3"),
        (Reply(400, {"message": "context length exceeded"}), openai.BadRequestError, None),
        (Reply(401, {"message": "no"}), openai.InternalServerError, None),
    ],
)
def test_the_servers_failures(
    client: OpenAI,
    loopback: Loopback,
    failure: Reply,
    kind: type[openai.APIStatusError],
    retry_after: str | None,
    stream: bool,
) -> None:
    loopback.will(failure)
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=MODEL, messages=ask(data_url()), stream=stream)
    assert caught.value.response.headers.get("retry-after") == retry_after
    body: Any = caught.value.body
    assert body["request_id"] == caught.value.request_id
    assert "upstream-key" not in str(body)


def test_a_picture_the_model_did_not_see_is_no_answer(url: str, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion(prompt_tokens=20)))
    with (
        OpenAI(api_key=KEY, base_url=url) as client,  # which would try again
        pytest.raises(openai.InternalServerError, match="did not see") as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=ask(data_url()))
    assert caught.value.type == "ImageNotSeenError"
    assert len(loopback.chats) == 1


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream(client: OpenAI, loopback: Loopback, usage: bool) -> None:
    loopback.will(Reply(chunks=stream_events("A ", "dog.")))
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=ask(data_url()),
            stream=True,
            stream_options={"include_usage": usage},
        )
    )
    told = [chunk for chunk in chunks if chunk.choices]
    assert [chunk.choices[0].delta.content for chunk in told] == ["A ", "dog.", None]
    assert told[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in told] == [None, None, "stop"]
    assert {(chunk.model, chunk.object) for chunk in told} == {(MODEL, "chat.completion.chunk")}
    assert (told[-1].model_extra or {})["seen"] == "confirmed"
    counted = [chunk.usage.total_tokens for chunk in chunks if chunk.usage]
    assert counted == ([5002] if usage else [])


def test_a_stream_over_the_wire(url: str, loopback: Loopback) -> None:
    loopback.will(Reply(chunks=stream_events("A dog.")))
    body = {"messages": ask(data_url()), "stream": True}
    answer = httpx.post(f"{url}/chat/completions", json=body, headers=BEARER, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    metrics = httpx.get(url.removesuffix("/v1") + "/metrics", headers=BEARER, timeout=60).text
    assert "internvl_gateway_completion_tokens_total 1.0" in metrics


@pytest.mark.parametrize(
    ("chunks", "kind", "status"),
    [
        (stream_events("A ", "dog.", done=False)[:2], "EngineError", 502),
        (
            [*stream_events("A ", "dog.")[:2], event({"error": {"message": "no"}})],
            "EngineError",
            502,
        ),
        (stream_events("A ", "dog.", prompt_tokens=20), "ImageNotSeenError", 502),
    ],
)
def test_an_error_in_the_middle_of_a_stream(
    url: str, client: OpenAI, loopback: Loopback, chunks: list[bytes], kind: str, status: int
) -> None:
    loopback.will(Reply(chunks=chunks))
    pieces = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(
            model=MODEL, messages=ask(data_url()), stream=True
        ):
            pieces.append(chunk.choices[0].delta.content)
    assert pieces == ["A ", "dog."]
    assert caught.value.type == kind
    body = {"messages": ask(data_url()), "stream": True}
    raw = httpx.post(f"{url}/chat/completions", json=body, headers=BEARER, timeout=60)
    assert raw.status_code == 200
    assert "[DONE]" not in raw.text
    metrics = httpx.get(url.removesuffix("/v1") + "/metrics", headers=BEARER, timeout=60).text
    assert f'internvl_gateway_requests_total{{status="{status}"}} 2.0' in metrics


def test_leaving_a_stream_ends_it_at_the_models_server(client: OpenAI, loopback: Loopback) -> None:
    left = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield stream_events("A ")[0]
                time.sleep(0.01)
        finally:
            left.set()

    def answer(_: Heard) -> Reply:
        return Reply(chunks=endless())

    loopback.will(answer)
    stream = client.chat.completions.create(model=MODEL, messages=ask(data_url()), stream=True)
    next(stream)
    stream.close()
    assert left.wait(60)


def test_the_async_client(url: str, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion()), Reply(chunks=stream_events("A ", "dog.")))

    async def run() -> None:
        async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == [MODEL]
            create = client.chat.completions.create
            answer = await create(model=MODEL, messages=ask(data_url()))
            assert answer.choices[0].message.content == "A cat."
            stream = await create(model=MODEL, messages=ask(data_url()), stream=True)
            assert [c.choices[0].delta.content async for c in stream] == ["A ", "dog.", None]
            with pytest.raises(openai.NotFoundError):
                await create(model="gpt-4o", messages=ask(data_url()))

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("detail", "tiles"), [("high", 24), ("low", 6), ("auto", 2), (5, 5)])
def test_our_own_client(
    url: str, loopback: Loopback, detail: Any, tiles: int, stream: bool
) -> None:
    cut: Any = {"finish": "length", "prompt_tokens": 40_000}
    loopback.will(
        Reply(chunks=stream_events("A cat.", **cut)) if stream else Reply(body=completion(**cut))
    )
    pictures: Any = [data_url(900, 450), data_url(450, 900)]
    with Client(base_url=url, api_key=KEY) as client:
        if stream:
            pieces = client.stream(pictures, "Alike?", detail=detail, max_tokens=3)
            assert "".join(pieces) == "A cat."
            found = pieces.description
        else:
            found = client.describe(pictures, "Alike?", detail=detail, max_tokens=3)
    (warning,) = found.warnings
    assert warning.startswith("the answer was cut at")
    assert found.seen == "confirmed"
    sent = loopback.chats[0].json["messages"][-1]["content"]
    assert [part["image_url"]["max_dynamic_patch"] for part in sent[1:]] == [tiles, tiles]
    assert sent[0]["text"] == "Image-1: <IMAGE_TOKEN>\nImage-2: <IMAGE_TOKEN>\nAlike?"


@pytest.mark.parametrize("stream", [False, True])
def test_our_own_client_learns_of_a_picture_not_seen(
    url: str, loopback: Loopback, stream: bool
) -> None:
    chunks = stream_events("A cat.", prompt_tokens=20)
    loopback.will(Reply(chunks=chunks) if stream else Reply(body=completion(prompt_tokens=20)))
    with (
        Client(base_url=url, api_key=KEY) as client,
        pytest.raises(ImageNotSeenError, match=r"did not see .*\(see the gateway's log\)"),
    ):
        list(client.stream(picture())) if stream else client.describe(picture())
    assert len(loopback.chats) == 1


def test_our_own_client_learns_of_a_detail_without_effect(loopback: Loopback) -> None:
    loopback.models = Reply(body=models_list("somebody", "internvl2_5-8b"))
    app = create_app(AsyncClient(loopback.url), api_key=KEY)
    with serving(app) as origin, Client(base_url=origin, api_key=KEY) as client:
        found = client.describe(picture(900, 450), detail="high")
    assert "top_k" not in loopback.chats[0].json, "which not every server takes"
    (warning,) = found.warnings
    assert warning.startswith("detail=24 had no effect")


@pytest.mark.parametrize("stream", [False, True])
def test_in_front_of_the_local_engine(stream: bool) -> None:
    scene = Image.new("RGB", (480, 480), "white")
    ImageDraw.Draw(scene).ellipse((170, 170, 310, 310), fill="red")
    file = io.BytesIO()
    scene.save(file, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    app = create_app(AsyncClient("local", model="demo"), api_key=KEY)
    with serving(app) as origin, OpenAI(api_key=KEY, base_url=f"{origin}/v1") as client:
        (model,) = client.models.list().data
        create = client.chat.completions.create
        messages = ask(image, text="Describe this image in detail.")
        if stream:
            chunks = list(create(model=model.id, messages=messages, stream=True))
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        else:
            text = create(model=model.id, messages=messages).choices[0].message.content or ""
    assert "red circle" in text
