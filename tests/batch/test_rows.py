"""A prompt a row, several prompts a picture, and typed answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from pyarrow import parquet
from pydantic import BaseModel

import internvl_modal as ivl
from internvl_modal.batch.prompts import Filler, Prompts
from internvl_modal.batch.schemas import kinds_of
from tests.batch.conftest import QUICK, lines
from tests.batch.sources import outcomes_of, png
from tests.loopback import Heard, Loopback, Reply, completion


class Colour(str, Enum):
    red = "red"
    blue = "blue"


class Cup(BaseModel):
    colour: Colour
    full: bool
    height: float | None = None
    words: list[str] = []
    text: str = ""


def question(heard: Heard) -> str:
    """The text beside the picture."""
    parts = heard.json["messages"][-1]["content"]
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    return text.rpartition("<IMAGE_TOKEN>")[2].strip()


def pictures_of(heard: Heard) -> int:
    return heard.body.count(b";base64,")


def echo(heard: Heard) -> Reply:
    return Reply(body=completion(f"<{question(heard)}>"))


@pytest.fixture
def client(loopback: Loopback) -> Iterator[ivl.Client]:
    loopback.will(echo)
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as made:
        yield made


@pytest.fixture
def table(pictures: Callable[[int], Path]) -> Path:
    folder = pictures(3)
    path = folder / "list.csv"
    path.write_text(
        "path,name,ask\n000000.png,cup,What is it?\n000001.png,{ask} {0.name},Where?\n"
        "000002.png,tea,How many?\n"
    )
    return path


def texts(outcomes: Any) -> list[str | None]:
    return [outcome.text for outcome in outcomes]


def test_columns_fill_a_prompt_in(client: ivl.Client, table: Path) -> None:
    prompt = "A {name}, {ask} {other} {name.x} {} {{name}} {0}"
    found = texts(client.describe_many(table, prompt, ordered=True, detail=1))
    rest = "{other} {name.x} {}"
    assert found == [
        f"<A cup, What is it? {rest} {{cup}} {{0}}>",
        f"<A {{ask}} {{0.name}}, Where? {rest} {{{{ask}} {{0.name}}}} {{0}}>",
        f"<A tea, How many? {rest} {{tea}} {{0}}>",
    ]


def test_a_prompt_without_a_table_stays_as_it_is(client: ivl.Client, table: Path) -> None:
    assert texts(client.describe_many(table.parent, "A {name}", detail=1)) == ["<A {name}>"] * 3


def sources(table: Path) -> dict[str, Any]:
    """The same rows, in every kind of source that has rows."""
    import datasets
    import pandas
    import polars
    import pyarrow

    frame = pandas.read_csv(table)
    frame["path"] = [str(table.parent / name) for name in frame["path"]]
    frame.to_parquet("list.parquet")
    frame.to_json("list.jsonl", orient="records", lines=True)
    frame.to_csv("list.tsv", sep="\t", index=False)
    return {
        "csv": table,
        "parquet": "list.parquet",
        "jsonl": "list.jsonl",
        "tsv": Path("list.tsv"),
        "pandas": frame,
        "polars": polars.DataFrame(frame.to_dict("list")),
        "arrow": pyarrow.table(frame.to_dict("list")),
        "datasets": datasets.Dataset.from_pandas(frame),
        "dicts": frame.to_dict("records"),
        "generator": (row for row in frame.to_dict("records")),
    }


def test_every_source_with_rows(client: ivl.Client, table: Path) -> None:
    for name, images in sources(table).items():
        found = texts(client.describe_many(images, prompt_column="ask", ordered=True, detail=1))
        assert found == ["<What is it?>", "<Where?>", "<How many?>"], name
    for name, images in sources(table).items():
        found = texts(
            client.describe_many(
                images, lambda row: f"{row['ask']}/{len(row)}", ordered=True, detail=1
            )
        )
        assert found == ["<What is it?/3>", "<Where?/3>", "<How many?/3>"], name


def test_another_prompt_in_a_row_is_asked_and_no_other(
    client: ivl.Client, loopback: Loopback, table: Path
) -> None:
    for out in ("out.jsonl", "out.parquet", "texts/"):
        how: dict[str, Any] = {"prompt_column": "ask", "out": out, "detail": 1}
        table.write_text(table.read_text().replace("Whence?", "Where?"))
        assert len(list(client.describe_many(table, **how))) == 3
        before = len(loopback.chats)
        again = client.describe_many(table, **how)
        assert list(again) == []
        assert (again.summary.skipped, len(loopback.chats)) == (3, before)
        table.write_text(table.read_text().replace("Where?", "Whence?"))
        assert texts(client.describe_many(table, **how)) == ["<Whence?>"]
        assert list(client.describe_many(table, **how)) == []
    written = lines(Path("out.jsonl"))
    assert [line["prompt"] for line in written][-1] == "Whence?"
    assert len({line["run"] for line in written}) == 1
    rows = parquet.read_table("out.parquet").to_pylist()
    assert sorted(row["prompt"] for row in rows) == [
        "How many?",
        "What is it?",
        "Whence?",
        "Where?",
    ]


def test_what_a_row_lacks_is_its_own_failure(client: ivl.Client, table: Path) -> None:
    rows = [
        {"path": str(table.parent / f"00000{n}.png"), **more}
        for n, more in enumerate([{"name": "cup"}, {"name": None}, {}])
    ]
    Path("list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for images in (rows, "list.jsonl"):
        outcomes = list(client.describe_many(images, "A {name}", ordered=True, detail=1))
        assert [each.ok for each in outcomes] == [True, False, False]
        assert "has nothing in column name" in str(outcomes[1].error)
    asked = list(client.describe_many(rows, prompt_column="name", ordered=True, detail=1))
    assert [each.text for each in asked] == ["<cup>", None, None]


def test_a_column_of_pictures_or_of_nothing_makes_no_prompt(client: ivl.Client) -> None:
    held = {"bytes": png(), "path": "a.png"}
    rows = [
        {"key": "text", "image": png(), "q": "Red?"},
        {"key": "bytes", "image": png(), "q": png()},
        {"key": "struct", "image": png(), "q": held},
        {"key": "list", "image": png(), "q": [held]},
        {"key": "pixels", "image": png(), "q": Image.new("RGB", (9, 9))},
        {"key": "blank", "image": png(), "q": " "},
        {"key": "number", "image": png(), "q": numpy.int64(3)},
        {"key": "names", "image": png(), "q": {"a": 1}},
    ]
    outcomes, error = outcomes_of(client, rows, prompt="{q}")
    assert error is None
    assert {each.key: each.prompt for each in outcomes if each.ok} == {
        "text": "Red?", "number": "3", "names": "{'a': 1}",
    }  # fmt: skip
    told = {each.key: str(each.error) for each in outcomes if not each.ok}
    assert "makes nothing of the prompt '{q}'" in told.pop("blank")
    assert all("has no text in column q" in each for each in told.values())


@pytest.mark.parametrize(
    ("images", "prompt", "how", "message"),
    [
        ([], "A", {"prompt_column": "x"}, "a prompt and prompt_column= are given"),
        ([], "A", {"prompts": {"a": "b"}}, "a prompt and prompts= are given"),
        ([], None, {"prompts": {}}, "prompts= is no mapping"),
        ([], None, {"prompts": {"text": "A"}}, "cannot be called 'text'"),
        ([], None, {"prompts": {"a": 3}}, r"prompts\['a'\] is 3"),
        ([], 3, {}, "the prompt is 3"),
        ([], None, {"prompts": {"a": "b"}, "schema": Cup}, "schema= and prompts="),
        ([], None, {"schema": {"type": "array"}}, "must be 'object'"),
        ([], None, {"schema": {"type": "objekt"}}, "must be 'object'"),
        ([], None, {"schema": {"properties": 3}}, "not a JSON schema"),
        ([], None, {"schema": int}, "no JSON schema"),
        ([], None, {"schema": Cup, "repairs": -1}, "repairs"),
        (["a.png"], None, {"prompt_column": "x"}, "has no columns"),
        (["a.png"], lambda row: "x", {}, "has no columns"),
        ((each for each in ["a.png"]), None, {"prompt_column": "x"}, "has no columns"),
        ([{"path": "a.png"}], lambda row: 3, {}, "the prompt of a row is 3"),
    ],
)  # fmt: skip
def test_what_is_asked_is_checked(
    client: ivl.Client, images: Any, prompt: Any, how: Any, message: str
) -> None:
    with pytest.raises(ivl.ConfigError, match=message):
        list(client.describe_many(images, prompt, **how))


def test_a_function_that_fails_is_the_callers_own_error(client: ivl.Client, table: Path) -> None:
    def broken(row: Mapping[str, Any]) -> str:
        if row["name"] == "tea":
            raise LookupError("mine")
        return "What?"

    taken = []
    with pytest.raises(LookupError, match="mine"):
        taken.extend(client.describe_many(table, broken, detail=1))
    assert len(taken) == 2


def test_several_prompts_a_picture(client: ivl.Client, loopback: Loopback, table: Path) -> None:
    prompts = {"short": "Say {name}", "tags": lambda row: row["ask"]}
    for out in ("out.jsonl", "out.parquet"):
        many = client.describe_many(table, prompts=prompts, out=out, ordered=True, detail=1)
        outcomes = list(many)
        assert many.summary.described == 3
        assert outcomes[0].answers["short"].text == "<Say cup>"
        assert outcomes[0].text == "<Say cup>\n\n<What is it?>"
        assert (outcomes[0].attempts, outcomes[0].description.usage.completion_tokens) == (2, 6)
        assert list(client.describe_many(table, prompts=prompts, out=out, detail=1)) == []
    assert len(loopback.chats) == 12
    assert {pictures_of(chat) for chat in loopback.chats} == {1}
    first = lines(Path("out.jsonl"))[0]
    assert (first["short"], first["tags"]) == ("<Say cup>", "<What is it?>")
    assert first["prompt"] == {"short": "Say cup", "tags": "What is it?"}
    rows = parquet.read_table("out.parquet").to_pylist()
    assert rows[0]["short"] == "<Say cup>"
    assert json.loads(rows[0]["prompt"]) == first["prompt"]


def test_the_picture_is_prepared_once(client: ivl.Client, tmp_path: Path) -> None:
    class Counted:
        reads = 0

        def read(self, size: int = -1) -> bytes:
            self.reads += 1
            Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
            return (tmp_path / "a.png").read_bytes()

    picture = Counted()
    prompts = {"a": "A", "b": "B", "c": "C"}
    (outcome,) = client.describe_many([("k", picture)], prompts=prompts, detail=1)  # type: ignore[list-item]
    assert outcome.text == "<A>\n\n<B>\n\n<C>"
    assert picture.reads == 1


def test_one_of_several_prompts_fails(loopback: Loopback, pictures: Callable[[int], Path]) -> None:
    """The input is one failure that keeps what was answered; asked again, it is asked whole."""
    broken = True

    def answer(heard: Heard) -> Reply:
        if broken and "tags" in question(heard):
            return Reply(400, {"error": {"message": "no tags"}})
        return echo(heard)

    loopback.will(answer)
    how: dict[str, Any] = {
        "prompts": {"short": "Say short", "tags": "Say tags", "long": "Say long"},
        "detail": 1,
    }
    folder = pictures(2)
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        for out in ("out.jsonl", "out.parquet"):
            broken = True
            many = client.describe_many(folder, out=out, **how)
            outcomes = list(many)
            assert (many.summary.described, many.summary.failed) == (0, 2)
            assert all("no tags" in str(each.error) for each in outcomes)
            assert all(each.answers.keys() == {"short", "long"} for each in outcomes)
            assert list(client.describe_many(folder, out=out, **how)) == []
            broken = False
            again = list(client.describe_many(folder, out=out, retry_errors=True, **how))
            assert [len(each.answers) for each in again] == [3, 3]
    written = lines(Path("out.jsonl"))
    assert Counter(line["key"] for line in written) == {str(p): 1 for p in folder.iterdir()}
    assert {line["tags"] for line in written} == {"<Say tags>"}
    rows = parquet.read_table("out.parquet").to_pylist()
    assert [(row["long"], row["error_type"]) for row in rows] == [("<Say long>", None)] * 2


def test_a_failure_keeps_what_was_answered(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    loopback.will(lambda heard: echo(heard) if "A" in question(heard) else Reply(400, {}))
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        list(client.describe_many(pictures(1), prompts={"a": "A", "b": "B"}, out="o.jsonl"))
    (line,) = lines(Path("o.jsonl"))
    assert line["a"] == "<A>"
    assert "b" not in line
    assert line["error"]["type"] == "RequestRejectedError"


def test_a_server_that_is_gone_between_two_prompts_is_no_failure_of_a_picture(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    loopback.will(lambda heard: echo(heard) if "A" in question(heard) else Reply(502, {}))
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        many = client.describe_many(
            pictures(30), prompts={"a": "A", "b": "B"}, out="o.jsonl", concurrency=2
        )
        with pytest.raises(ivl.ServerUnavailableError):
            list(many)


CUP = {"colour": "red", "full": True, "height": 3, "words": ["a", "b"], "text": "hi"}


@pytest.mark.parametrize("schema", [Cup, Cup.model_json_schema()], ids=["model", "document"])
@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_a_typed_batch(
    loopback: Loopback, pictures: Callable[[int], Path], schema: Any, out: str
) -> None:
    """Of four pictures one is answered well, one after a repair, one never, one with a fence."""
    wrong = json.dumps(CUP | {"colour": "grey"})
    given: dict[str, list[str]] = {}

    def answer(heard: Heard) -> Reply:
        picture = heard.body.partition(b";base64,")[2].partition(b'"')[0].decode()
        if picture not in given:
            given[picture] = [
                [json.dumps(CUP)], [wrong, json.dumps(CUP)], [wrong], [f"```\n{json.dumps(CUP)}\n```"]
            ][len(given)]  # fmt: skip
        said = given[picture]
        return Reply(body=completion(said.pop(0) if len(said) > 1 else said[0]))

    loopback.will(answer)
    folder = pictures(4)
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        many = client.describe_many(
            folder, "Look.", schema=schema, out=out, detail=1, concurrency=1
        )
        outcomes = list(many)
        assert (many.summary.described, many.summary.failed) == (3, 1)
        assert list(client.describe_many(folder, "Look.", schema=schema, out=out, detail=1)) == []
        assert many.summary.described == 3
        other = client.describe_many(folder, "Look.", out=out, detail=1)
        assert len(list(other)) == 4  # another run
    good = [each for each in outcomes if each.ok]
    assert sorted(each.attempts for each in outcomes) == [1, 1, 2, 3]
    for each in good:
        value = each.value if isinstance(each.value, BaseModel) else Cup(**each.value)  # type: ignore[arg-type]
        assert value == Cup(**CUP)  # type: ignore[arg-type]
    (bad,) = (each for each in outcomes if not each.ok)
    assert isinstance(bad.error, ivl.OutputInvalidError)
    assert bad.error.text == wrong
    assert bad.value is None
    if out == "out.jsonl":
        written = [line for line in lines(Path(out)) if "colour" in line or "error" in line]
        assert [line["colour"] for line in written if "error" not in line] == ["red"] * 3
        assert written[0]["value_text"] == "hi"
        assert [line["error"]["text"] for line in written if "error" in line] == [wrong]
        return
    table = parquet.read_table(out)
    types = {name: str(table.schema.field(name).type) for name in ("full", "height", "words")}
    assert types["full"] == "bool"
    assert types["height"] == "double"
    assert "string" in types["words"]
    rows = table.to_pylist()
    assert [row["height"] for row in rows if row["colour"]] == [3.0] * 3
    assert [row["error_text"] for row in rows if row["error_type"]] == [wrong]


def test_kinds_of_columns() -> None:
    class Inner(BaseModel):
        a: int

    class Outer(BaseModel):
        inner: Inner
        count: int | None
        either: int | str
        colour: Colour
        names: list[str] | None = None
        many: list[Inner] = []
        key: str = ""

    assert kinds_of(Outer.model_json_schema()) == {
        "inner": "", "count": "integer", "either": "", "colour": "string", "names": "strings",
        "many": "", "value_key": "string",
    }  # fmt: skip


def test_what_fits_no_column_is_written_as_json(
    loopback: Loopback, pictures: Callable[[int], Path]
) -> None:
    class Huge(BaseModel):
        count: int
        inner: dict[str, int]

    loopback.will(Reply(body=completion(json.dumps({"count": 2**70, "inner": {"a": 1}}))))
    with ivl.Client(base_url=loopback.url, model="m", retry=QUICK) as client:
        list(client.describe_many(pictures(1), schema=Huge, out="out.parquet", detail=1))
    (row,) = parquet.read_table("out.parquet").to_pylist()
    assert row["count"] == str(2**70)
    assert json.loads(row["inner"]) == {"a": 1}


def test_the_texts_of_a_prompt_are_not_read_again() -> None:
    filler = Filler(Prompts.parse("{a}{b}", None, None, default=""))
    assert filler.texts({"a": "{b}", "b": "{a}"})[0] == ("{b}{a}",)
