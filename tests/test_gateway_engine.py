"""What the gateway passes on to the engine behind, what it leaves to it, and what it holds."""

from __future__ import annotations

import enum
import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from internvl_modal.client.aio import AsyncClient
from internvl_modal.client.sync import Client
from internvl_modal.gateway import create_app
from internvl_modal.protocol.endpoint import Capabilities, Endpoint
from internvl_modal.transport.retry import Retry
from tests.asgi import serving
from tests.loopback import Loopback, Reply, completion, event
from tests.test_gateway import BEARER, KEY, PICTURE

HELLO: Any = [{"role": "user", "content": "Hello."}]
SET_BY_NOBODY = {
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "seed",
    "stop",
    "repetition_penalty",
}


class Speaking:
    """A server of a known kind at a URL."""

    name = "speaking"

    def __init__(self, url: str, dialect: str) -> None:
        self._endpoint = Endpoint(url, "m", capabilities=Capabilities(dialect, json_schema=False))

    def start(self) -> Endpoint:
        return self._endpoint

    def stop(self) -> None:
        pass


@pytest.fixture
def dialect() -> str:
    return "vllm"


@pytest.fixture
def client(loopback: Loopback, dialect: str) -> Iterator[OpenAI]:
    backend = Speaking(loopback.url, dialect)
    app = create_app(AsyncClient(backend, retry=Retry(attempts=1)), api_key=KEY)
    with (
        serving(app) as origin,
        OpenAI(api_key=KEY, base_url=f"{origin}/v1", max_retries=0) as made,
    ):
        yield made


def ask(client: OpenAI, **fields: Any) -> Any:
    names = ("stream", "stream_options", "response_format")
    known = {name: fields.pop(name) for name in names if name in fields}
    return client.chat.completions.create(model="", messages=HELLO, **known, extra_body=fields)


def set_in(loopback: Loopback) -> set[str]:
    """Fields of the last request but those of a stream, which llama.cpp is always asked for."""
    return loopback.chats[-1].json.keys() - {"stream", "stream_options"}


@pytest.mark.parametrize("dialect", ["vllm", "lmdeploy", "llamacpp", "openai"])
def test_what_nobody_sets_is_not_set(client: OpenAI, loopback: Loopback) -> None:
    ask(client)
    assert set_in(loopback) == {"model", "messages"}
    assert [turn["role"] for turn in loopback.chats[0].json["messages"]] == ["user"]


def test_what_is_set_is_set(client: OpenAI, loopback: Loopback) -> None:
    given = {"temperature": 0.0, "top_p": 0.5, "max_tokens": 3, "top_k": 2, "seed": 0}
    ask(client, **given)
    assert {name: loopback.chats[0].json[name] for name in given} == given


NEUTRAL = {
    "ignore_eos": False,
    "min_p": 0.0,
    "min_tokens": 0,
    "min_new_tokens": None,
    "repetition_penalty": 1.0,
    "top_k": -1,
    "top_p": 1.0,
    "seed": -1,
    "max_tokens": -1,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "logprobs": False,
    "top_logprobs": 0,
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "session_id": -1,
    "use_beam_search": False,
    "best_of": 1,
    "length_penalty": 1.0,
    "repeat_penalty": 1.0,
    "stop_token_ids": [],
    "chat_template_kwargs": {},
    "tools": None,
    "response_format": {"type": "text"},
}


@pytest.mark.parametrize("dialect", ["vllm", "lmdeploy", "llamacpp", "ollama", "openai"])
def test_neutral_values_are_taken_by_every_engine(client: OpenAI, loopback: Loopback) -> None:
    ask(client, **NEUTRAL)
    assert set_in(loopback) == {"model", "messages"}


SENT: dict[str, Any] = {
    "ignore_eos": True,
    "min_p": 0.1,
    "min_tokens": 3,
    "skip_special_tokens": False,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"42": 1.5},
    "logprobs": True,
    "top_logprobs": 2,
}


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai", "gateway"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_takes_is_passed_on(
    client: OpenAI, loopback: Loopback, stream: bool
) -> None:
    told = completion()
    loopback.will(Reply(body=told))
    answer = ask(client, **SENT, stream=stream)
    list(answer) if stream else None
    sent = loopback.chats[0].json
    assert {name: sent.get(name) for name in SENT} == SENT


THOUGHT = [
    {"content": "A cat.", "reasoning_content": "Fur, whiskers."},
    {"content": "A cat.", "reasoning": "Fur, whiskers."},
    {"content": "<think>Fur, whiskers.</think>A cat."},
]
"""One answer, as LMDeploy, vLLM and a server without a parser for thoughts say it."""


@pytest.mark.parametrize("message", THOUGHT)
@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_told_apart(
    client: OpenAI, loopback: Loopback, message: dict[str, str], stream: bool
) -> None:
    if stream:
        deltas = [{"delta": {name: text[:4]}} for name, text in message.items()]
        deltas += [{"delta": {name: text[4:]}} for name, text in message.items()]
        # The thought comes first.
        events = [event({"choices": [one]}) for one in sorted(deltas, key=_spoken)]
        end = event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        loopback.will(Reply(chunks=[*events, end, b"data: [DONE]\n\n"]))
        said = [chunk.choices[0].delta.model_dump() for chunk in ask(client, stream=True)]
    else:
        answer = completion()
        answer["choices"][0]["message"] = {"role": "assistant", **message}
        loopback.will(Reply(body=answer))
        said = [ask(client).choices[0].message.model_dump()]
    assert "".join(one.get("content") or "" for one in said) == "A cat."
    assert "".join(one.get("reasoning_content") or "" for one in said) == "Fur, whiskers."


def _spoken(choice: dict[str, dict[str, str]]) -> bool:
    return "content" in choice["delta"]


@pytest.mark.parametrize("grounding", [None, True])
def test_grounding_is_meant_where_it_is_said(
    loopback: Loopback, client: OpenAI, grounding: bool | None
) -> None:
    marked = "Where is <ref>the cat</ref>?"
    with Client(base_url=str(client.base_url), api_key=KEY) as ours:
        ours.describe(b64decode(PICTURE), marked, grounding=bool(grounding))
    assert (marked in str(loopback.chats[0].json["messages"])) is bool(grounding)
    assert "grounding" not in loopback.chats[0].json


@pytest.mark.parametrize(
    ("dialect", "name", "value", "theirs"),
    [
        ("lmdeploy", "min_tokens", 3, "min_new_tokens"),
        ("lmdeploy", "min_new_tokens", 3, "min_new_tokens"),
        ("vllm", "min_new_tokens", 3, "min_tokens"),
        ("sglang", "min_new_tokens", 3, "min_tokens"),
        ("llamacpp", "repetition_penalty", 1.2, "repeat_penalty"),
    ],
)
def test_the_engines_own_name_is_used(
    client: OpenAI, loopback: Loopback, name: str, value: object, theirs: str
) -> None:
    ask(client, **{name: value})
    assert set_in(loopback) == {"model", "messages", theirs}
    assert loopback.chats[0].json[theirs] == value


@pytest.mark.parametrize(
    ("dialect", "name", "value"),
    [
        ("lmdeploy", "presence_penalty", 0.5),
        ("lmdeploy-0.13", "frequency_penalty", 0.5),
        ("llamacpp", "min_tokens", 3),
        ("ollama", "ignore_eos", True),
        ("vllm", "made_up", 1),
    ],
)
def test_what_the_engine_does_not_take_is_refused_by_name(
    client: OpenAI, loopback: Loopback, name: str, value: object
) -> None:
    with pytest.raises(openai.BadRequestError, match=name) as caught:
        ask(client, **{name: value})
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
    assert not loopback.chats


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 2**31),
        ("max_tokens", 0),
        ("max_completion_tokens", 10**30),
        ("top_k", -2),
        ("seed", 2**32),
        ("n", 0),
        ("n", 9),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_logprobs", 21),
        ("min_tokens", -1),
        ("logit_bias", {"1": "x"}),
        ("stop", [""]),
    ],
)
def test_the_callers_own_mistakes(
    client: OpenAI, loopback: Loopback, name: str, value: object
) -> None:
    with pytest.raises(openai.BadRequestError, match=name.removeprefix("max_completion_")):
        ask(client, **{name: value})
    assert not loopback.chats


LOGPROBS = {"content": [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]}


def test_logprobs_come_back(client: OpenAI, loopback: Loopback) -> None:
    told = completion()
    told["choices"][0]["logprobs"] = LOGPROBS
    loopback.will(Reply(body=told))
    answer = ask(client, logprobs=True)
    assert answer.choices[0].logprobs.content[0].logprob == -0.5


def test_logprobs_come_back_in_a_stream(client: OpenAI, loopback: Loopback) -> None:
    def chunk(text: str, end: str | None) -> bytes:
        choice = {"delta": {"content": text}, "logprobs": LOGPROBS, "finish_reason": end}
        return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()

    loopback.will(Reply(chunks=[chunk("A ", None), chunk("dog.", "stop"), b"data: [DONE]\n\n"]))
    chunks = list(ask(client, logprobs=True, stream=True))
    found = [
        item
        for one in chunks
        if one.choices[0].logprobs
        for item in one.choices[0].logprobs.content
    ]
    assert len(found) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers(client: OpenAI, loopback: Loopback, stream: bool) -> None:
    loopback.will(*(Reply(body=completion(text)) for text in ("A.", "B.", "C.")))
    answer = ask(
        client,
        n=3,
        seed=5,
        stream=stream,
        stream_options={"include_usage": True} if stream else None,
    )
    if stream:
        chunks = list(answer)
        texts = {
            c.choices[0].index: c.choices[0].delta.content
            for c in chunks
            if c.choices and c.choices[0].delta.content
        }
        usage = chunks[-1].usage
    else:
        texts = {choice.index: choice.message.content for choice in answer.choices}
        usage = answer.usage
    assert sorted(texts) == [0, 1, 2]
    assert sorted(texts.values()) == ["A.", "B.", "C."]
    assert (usage.prompt_tokens, usage.completion_tokens) == (5000, 9)
    assert sorted(chat.json["seed"] for chat in loopback.chats) == [5, 6, 7]


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_an_empty_answer_about_no_picture_is_an_answer(
    client: OpenAI, loopback: Loopback, finish: str
) -> None:
    loopback.will(Reply(body=completion("", finish=finish, completion_tokens=1)))
    answer = ask(client, max_tokens=1)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", finish)


def test_one_model_by_its_name(client: OpenAI) -> None:
    assert client.models.retrieve("m").id == "m"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other/model")
    assert caught.value.code == "model_not_found"


def test_the_responses_api_is_another_one(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Responses API is not served here"):
        client.responses.create(model="m", input="Hello.")


class Colour(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str
    count: int


class Scene(BaseModel):
    colour: Colour
    parts: list[Part]
    note: str | None = None


GOOD = {"colour": "red", "parts": [{"name": "wheel", "count": 4}], "note": None}


@pytest.mark.parametrize("dialect", ["lmdeploy", "openai", "ollama"])
def test_a_strict_schema_of_openais_parse(client: OpenAI, loopback: Loopback) -> None:
    wrong = {**GOOD, "colour": "green"}
    loopback.will(
        Reply(body=completion("I think so.")),
        Reply(body=completion(f"```json\n{json.dumps(wrong)}\n```")),
        Reply(body=completion(f"Here: {json.dumps(GOOD)}", completion_tokens=7)),
    )
    answer = client.chat.completions.parse(model="", messages=HELLO, response_format=Scene)
    assert answer.choices[0].message.parsed == Scene(
        colour=Colour.RED, parts=[Part(name="wheel", count=4)]
    )
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (15000, 13)
    first, second, third = (chat.json["messages"] for chat in loopback.chats)
    assert "JSON schema" in str(first[-1]["content"])
    assert "no JSON object" in second[-1]["content"]
    assert "'green' is not one of" in third[-1]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_any_object(client: OpenAI, loopback: Loopback, stream: bool) -> None:
    loopback.will(Reply(body=completion('Sure! {"a": [1, 2]}')))
    answer = ask(client, response_format={"type": "json_object"}, stream=stream)
    if stream:
        chunks = [chunk for chunk in answer if chunk.choices]
        texts = [chunk.choices[0].delta.content for chunk in chunks]
        assert [text for text in texts if text] == ['{"a": [1, 2]}']
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert answer.choices[0].message.content == '{"a": [1, 2]}'


def test_an_object_of_a_schema_as_llamacpp_takes_it(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion('{"a": 1}')), Reply(body=completion('{"a": "x"}')))
    document = {"type": "object", "properties": {"a": {"type": "string"}}}
    answer = ask(client, response_format={"type": "json_object", "schema": document})
    assert answer.choices[0].message.content == '{"a": "x"}'


def test_an_object_that_was_cut(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(Reply(body=completion('{"a": [1, ', finish="length")))
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=5)
    assert (answer.choices[0].finish_reason, len(loopback.chats)) == ("length", 1)


def test_an_answer_that_never_fits(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(*[Reply(body=completion("No."))] * 3)
    with pytest.raises(openai.InternalServerError, match="does not fit") as caught:
        ask(client, response_format={"type": "json_object"})
    assert caught.value.type == "OutputInvalidError"
    assert caught.value.response.headers["X-Should-Retry"] == "false"


def schema(**document: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": document}}


@pytest.mark.parametrize(
    "form",
    [
        schema(type="array"),
        schema(type="objekt"),
        schema(type="object", properties={"a": {"pattern": "("}}),
        schema(type="object", properties={"a": {"pattern": r"(a)\1"}}),
        schema(type="object", patternProperties={"^a": {}}),
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "regex_schema", "regex_schema": "a+"},
    ],
)
def test_what_is_no_schema(client: OpenAI, loopback: Loopback, form: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=form)
    assert str(caught.value.param).startswith("response_format")
    assert not loopback.chats


@pytest.mark.parametrize("reference", ["#/$defs/no", "http://127.0.0.1:9/schema.json"])
def test_no_reference_is_followed_out_of_the_schema(
    client: OpenAI, loopback: Loopback, reference: str
) -> None:
    loopback.will(Reply(body=completion('{"a": 1}')))
    with pytest.raises(openai.BadRequestError, match="refers to what is not in it"):
        ask(client, response_format=schema(type="object", properties={"a": {"$ref": reference}}))


def test_a_pattern_takes_no_time(client: OpenAI, loopback: Loopback) -> None:
    loopback.will(
        Reply(body=completion(json.dumps({"a": "a" * 64 + "b"}))),
        Reply(body=completion('{"a": "a"}')),
    )
    answer = ask(
        client, response_format=schema(type="object", properties={"a": {"pattern": "^(a+)+$"}})
    )
    assert answer.choices[0].message.content == '{"a": "a"}'


DOUBLING: Any = {
    "$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    | {"d40": {"type": "string"}},
    "properties": {"a": {"$ref": "#/$defs/d0"}},
}
"""A terabyte of branches in a few KB."""
ALIKE = {"a": [{"x": n} for n in range(20_000)]}


@pytest.mark.parametrize(
    ("document", "found", "fits"),
    [
        (DOUBLING, {"a": 1}, False),
        ({"properties": {"a": {"uniqueItems": True}}}, ALIKE, True),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [[1], [1]]}, False),
    ],
    ids=["references that double", "items that are unique", "items that are not"],
)
def test_an_answer_is_checked_in_bounded_steps(
    client: OpenAI, loopback: Loopback, document: Any, found: Any, fits: bool
) -> None:
    loopback.will(Reply(body=completion(json.dumps(found))), Reply(body=completion("{}")))
    answer = ask(client, response_format=schema(type="object", **document))
    assert json.loads(answer.choices[0].message.content) == (found if fits else {})


@pytest.mark.parametrize(
    "properties",
    [
        {f"p{n}": {"type": "string"} for n in range(2001)},
        {f"p{n}": {"pattern": f"a{n}.*(b|c){{1,500}}"} for n in range(101)},
    ],
    ids=["parts", "patterns"],
)
def test_a_schema_that_is_too_large(client: OpenAI, loopback: Loopback, properties: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="more than 2000 parts, or 100 patterns"):
        ask(client, response_format=schema(type="object", properties=properties))
    assert not loopback.chats


def test_a_message_may_be_one_text(client: OpenAI, loopback: Loopback) -> None:
    url = f"{client.base_url}chat/completions"
    body = {"model": "m", "messages": "Hello."}
    assert httpx.post(url, json=body, headers=BEARER, timeout=60).status_code == 200
    assert loopback.chats[0].json["messages"] == HELLO
