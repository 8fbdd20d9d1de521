"""Objects in what a model writes, and servers that refuse a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

import internvl_modal as ivl
from internvl_modal.protocol.structured_output import fitting, read_answer
from tests.loopback import Heard, Loopback, Reply, models_list
from tests.servers.answers import chat

PICTURE = Image.new("RGB", (50, 50))


class Cup(BaseModel):
    colour: str
    full: bool


class Line(BaseModel):
    name: str
    price: float = 0


class Invoice(BaseModel):
    total: float | None = None
    vendor: str | None = None
    lines: list[Line] = []


RED, GREEN = '{"colour":"red","full":true}', '{"colour":"green","full":false}'


@pytest.mark.parametrize(
    "text",
    [
        RED,
        f"Here it is: {RED}. I hope that helps {{smile}}.",
        f"Such as {GREEN}. My answer:\n```json\n{RED}\n```",
        f"```json\n{RED}\n```\nUnlike {GREEN}",
        f"```\n{GREEN}\n```\nno:\n~~~json\n{RED}\n~~~",
        f"Maybe {GREEN}? No: {RED}",
        f'{{"properties":{{"colour":{{"type":"string"}}}}}}\n{RED}',
        f'{RED}\n{{"note":"done"}}',
        f"Broken {{colour: green}} first, then {RED}",
        f"```json\nnothing\n```\n{RED}",
        '{"colour":"red","full":true,}',
        '{"colour":"red",\n "full":true,\n}',
        '{"colour":"red"\t,"full":true}',
        f"[{GREEN}, {RED}]",
        f'```json\n{RED}\n``` and ```python\nprint("x")\n```',
    ],
)
def test_the_answer_is_found(text: str) -> None:
    assert read_answer(text, fitting(Cup)) == Cup(colour="red", full=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"total": 12.5, "lines": [{"name": "a", "price": 1}, {"name": "b", "pri', "cut"),
        ('{"total": 12.5, "lines": [{"name": "a", "price": 1}', "cut"),
        ('Such as {"total": 1}. It is {"total": 2, "ven', "cut"),
        ('```json\n{"total": 1}\n```\nor rather\n```json\n{"total": 2, "ven', "cut"),
        ('{"total": 12.5 "lines": [{"name": "a"}]}', "cannot be read"),
        ("{total: 12.5, lines: [{\"name\": \"a\"}]}", "cannot be read"),
        ('{"total": 1} or {"total": 2, "vendor": None}', "cannot be read"),
        ("no braces", "no JSON object"),
        ("{" * 100_000, "cut"),
        ('{"lines": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply|cannot be read"),
        ('{"total": "much"}', "total='much'"),
    ],
)  # fmt: skip
def test_no_part_is_taken_for_the_answer(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_answer(text, fitting(Invoice))


def test_a_trailing_comma_is_forgiven_but_not_in_a_string() -> None:
    text = '{"total": 1, "vendor": "a,}", "lines": [{"name": ",]", "price": 1,},],}'
    found = read_answer(text, fitting(Invoice))
    assert (found.vendor, found.lines) == ("a,}", [Line(name=",]", price=1)])


def test_a_thought_is_not_the_answer(loopback: Loopback) -> None:
    loopback.will(Reply(body=chat(f"<think>Maybe {GREEN}? No.</think>\n{RED}")))
    with ivl.Client(loopback.url, model="m") as client:
        assert client.extract(PICTURE, Cup, repairs=0).colour == "red"


def test_a_cut_answer_is_said_to_be_cut(loopback: Loopback) -> None:
    loopback.will(Reply(body=chat('{"total": 1, "lines": [{"name": "a"}, {"na', "length")))
    with (
        ivl.Client(loopback.url, model="m") as client,
        pytest.raises(ivl.OutputInvalidError, match="cut at") as caught,
    ):
        client.extract(PICTURE, Invoice)
    assert caught.value.text.startswith('{"total": 1')
    assert len(loopback.chats) == 1


def without_schemas(status: int, body: Any) -> Any:
    def answer(heard: Heard) -> Reply:
        return Reply(status, body) if "response_format" in heard.json else Reply(body=chat(RED))

    return answer


@pytest.mark.parametrize("owner", ["vllm", "sglang", "library", "llamacpp", "lmdeploy", "another"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"message": "schema not supported by xgrammar"}),
        (422, {"detail": [{"loc": ["body", "response_format"], "msg": "extra"}]}),
        (200, {"error": {"code": 400, "message": "response_format is not supported"}}),
        # OpenRouter, where no provider of the model takes one
        (
            404,
            {
                "error": {
                    "code": 404,
                    "message": "No endpoints found that can handle the requested parameters.",
                }
            },
        ),
    ],
)
def test_a_refused_schema_is_left_out_and_remembered(
    loopback: Loopback, owner: str, status: int, body: Any
) -> None:
    loopback.models = Reply(body=models_list(owner, "m"))
    loopback.will(without_schemas(status, body))
    with ivl.Client(loopback.url) as client:
        for _ in range(2):
            assert client.extract(PICTURE, Cup).colour == "red"
    sent = ["response_format" in heard.json for heard in loopback.chats]
    assert sent == [True, False, False]
    with ivl.Client(loopback.url) as client:
        client.extract(PICTURE, Cup)
    if owner != "another":
        return
    loopback.heard.clear()
    with ivl.Client(loopback.url) as client:
        client.extract(PICTURE, Cup)
        with pytest.raises(ivl.OutputInvalidError):
            client.extract(PICTURE, Line, repairs=0)
    sent = ["response_format" in heard.json for heard in loopback.chats]
    assert sent == [True, False, False], "such a server takes none at all"


def test_only_that_schema_is_left_out_where_others_are_taken(loopback: Loopback) -> None:
    def answer(heard: Heard) -> Reply:
        asked = json.dumps(heard.json.get("response_format"))
        return Reply(400, "no") if "colour" in asked else Reply(body=chat(RED))

    loopback.models = Reply(body=models_list("vllm", "m"))
    loopback.will(answer)
    with ivl.Client(loopback.url) as client:
        client.extract(PICTURE, Cup)
        client.extract(PICTURE, Invoice)
    sent = ["response_format" in heard.json for heard in loopback.chats]
    assert sent == [True, False, True]


def test_what_is_refused_for_another_reason_is_not_the_schemas_fault(loopback: Loopback) -> None:
    loopback.models = Reply(body=models_list("vllm", "m"))
    refused = Reply(400, {"message": "Failed to load image"})
    loopback.will(refused, refused, Reply(body=chat(RED)))
    with ivl.Client(loopback.url) as client:
        with pytest.raises(ivl.RequestRejectedError, match="Failed to load"):
            client.extract(PICTURE, Cup)
        client.extract(PICTURE, Cup)
    sent = ["response_format" in heard.json for heard in loopback.chats]
    assert sent == [True, False, True]


@pytest.mark.parametrize("status", [401, 404, 429])
def test_other_errors_are_not_asked_again_without_it(loopback: Loopback, status: int) -> None:
    loopback.will(Reply(status, {"message": "no"}))
    retry = ivl.Retry(attempts=1)
    with ivl.Client(loopback.url, model="m", retry=retry) as client, pytest.raises(ivl.ServerError):
        client.extract(PICTURE, Cup)
    assert len(loopback.chats) == 1


def test_a_gateway_is_not_asked_for_schemas(loopback: Loopback) -> None:
    loopback.models = Reply(body=models_list("internvl-modal", "m"))
    loopback.will(Reply(body=chat(RED)))
    with ivl.Client(loopback.url) as client:
        client.extract(PICTURE, Cup)
    assert "response_format" not in loopback.chats[0].json
