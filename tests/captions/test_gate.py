"""What a batch and a call do with answers that are no good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import internvl_modal as ivl
from tests.batch.conftest import lines, make_pictures
from tests.loopback import Heard, Loopback, Reply, completion

ASKED = "Describe this image in detail."
GOOD = "A dog carries a red frisbee across a meadow."
QUICK = ivl.Retry(attempts=3, initial=0.01)


def said(heard: Heard) -> str:
    """The prompt of a request."""
    content = heard.json["messages"][-1]["content"]
    return str(next(part["text"] for part in content if part["type"] == "text"))


@pytest.fixture
def client(loopback: Loopback) -> Iterator[ivl.Client]:
    with ivl.Client(base_url=loopback.url, retry=QUICK) as made:
        yield made


def one(
    client: ivl.Client, folder: Path, prompt: str | None = ASKED, **options: Any
) -> ivl.Outcome:
    """The outcome of a single picture."""
    [outcome] = client.describe_many(
        make_pictures(folder / "photos", 1), prompt, progress=False, **options
    )
    return outcome


def test_by_default_flags_are_written_and_cost_nothing(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("This image shows a dog on the")))
    outcome = one(client, tmp_path, out=tmp_path / "out.jsonl")
    assert outcome.ok
    assert outcome.flags == ("cut", "opener")
    assert outcome.tried == ()
    assert len(loopback.chats) == outcome.attempts == 1
    [line] = lines(tmp_path / "out.jsonl")
    assert line["flags"] == ["cut", "opener"]
    assert line["text"] == "This image shows a dog on the"


def test_a_good_answer_has_no_flags(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    loopback.will(Reply(body=completion(GOOD)))
    for on_flag in ("record", "retry", "fail"):
        outcome = one(client, tmp_path, on_flag=on_flag)
        assert (outcome.text, outcome.flags, outcome.attempts) == (GOOD, (), 1)


def test_the_ladder(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    loopback.will(Reply(body=completion("The the the the the the the the the the the the the.")))
    outcome = one(client, tmp_path, on_flag="retry", out=tmp_path / "out.jsonl")
    asked = [
        (h.json["temperature"], h.json.get("seed"), h.json["max_tokens"]) for h in loopback.chats
    ]
    assert asked == [
        (0, None, 1024), (0.2, 1, 1024), (0.5, 2, 1024), (0.8, 3, 1024), (0, None, 512),
    ]  # fmt: skip
    assert outcome.ok
    assert outcome.flags == ("repetition",)
    assert outcome.attempts == 5
    assert [words.partition(":")[0] for words in outcome.tried] == [
        "first", "temperature 0.2", "temperature 0.5", "temperature 0.8", "max_tokens 512",
    ]  # fmt: skip
    assert lines(tmp_path / "out.jsonl")[0]["tried"] == list(outcome.tried)
    assert outcome.description is not None
    assert outcome.description.usage.completion_tokens == 5 * 3


def test_the_best_is_kept(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    texts = [
        "I'm sorry, but I can't help with that.",
        "This image shows a dog.",
        "Dog.",
        "Cat.",
        "A.",
    ]
    loopback.will(*(Reply(body=completion(text)) for text in texts))
    outcome = one(client, tmp_path, on_flag="retry")
    assert outcome.text == "This image shows a dog."
    assert outcome.flags == ("opener",)


def test_it_climbs_no_further_than_it_must(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("Dog.")), Reply(body=completion(GOOD)))
    outcome = one(client, tmp_path, on_flag="retry")
    assert (outcome.text, outcome.flags, outcome.attempts) == (GOOD, (), 2)
    assert outcome.tried == ("first: one-word", "temperature 0.2: good")


def test_the_callers_temperature_is_the_first_rung(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("Dog.")))
    one(client, tmp_path, on_flag="retry", temperature=0.5, seed=40, max_tokens=40)
    asked = [
        (h.json["temperature"], h.json.get("seed"), h.json["max_tokens"]) for h in loopback.chats
    ]
    assert asked == [(0.5, 40, 40), (0, None, 40), (0.2, 41, 40), (0.8, 43, 40), (0.5, 40, 32)]


def test_an_empty_answer_goes_up_the_same_ladder(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(
        Reply(body=completion("")), Reply(body=completion("")), Reply(body=completion(GOOD))
    )
    outcome = one(client, tmp_path, on_flag="retry")
    assert (outcome.text, outcome.flags, outcome.attempts) == (GOOD, (), 3)
    assert outcome.tried[0] == "first: empty"


def test_only_empty_answers_are_a_failure(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("")))
    outcome = one(client, tmp_path, on_flag="retry", out=tmp_path / "out.jsonl")
    assert isinstance(outcome.error, ivl.EmptyAnswerError)
    assert outcome.attempts == len(loopback.chats) == 5
    assert outcome.flags == ("empty",)
    assert len(outcome.tried) == 5
    assert lines(tmp_path / "out.jsonl")[0]["tried"] == list(outcome.tried)


def test_a_server_that_fails_on_the_ladder_loses_no_answer(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("Dog.")), Reply(400, {"error": {"message": "no seeds"}}))
    outcome = one(client, tmp_path, on_flag="retry")
    assert (outcome.text, outcome.flags) == ("Dog.", ("one-word",))
    assert outcome.tried == ("first: one-word", "temperature 0.2: RequestRejectedError")


def test_fail_keeps_the_text(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    loopback.will(Reply(body=completion("Dog.")))
    outcome = one(client, tmp_path, on_flag="fail", out=tmp_path / "out.jsonl")
    assert isinstance(outcome.error, ivl.AnswerFlaggedError)
    assert (outcome.error.text, outcome.error.flags) == ("Dog.", ("one-word",))
    assert outcome.flags == ("one-word",)
    [line] = lines(tmp_path / "out.jsonl")
    assert line["error"]["text"] == "Dog."
    assert line["flags"] == ["one-word"]
    # And it is asked about again where failures are.
    loopback.will(Reply(body=completion(GOOD)))
    again = one(client, tmp_path, on_flag="fail", out=tmp_path / "out.jsonl", retry_errors=True)
    assert again.text == GOOD
    assert [each["flags"] for each in lines(tmp_path / "out.jsonl")] == [[]]


def test_quality_can_be_turned_off(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    loopback.will(Reply(body=completion("Dog.")))
    assert one(client, tmp_path, quality=False, on_flag="fail").flags == ()
    assert one(client, tmp_path, quality=["empty"], on_flag="fail").flags == ()
    assert one(client, tmp_path, quality=["one-word"]).flags == ("one-word",)


def test_the_language_counts_where_it_is_said(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("Ein Hund läuft mit einem roten Ball über die Wiese.")))
    assert one(client, tmp_path).flags == ()
    assert one(client, tmp_path, language="en").flags == ("language",)
    assert one(client, tmp_path, language="de").flags == ()
    with pytest.raises(ivl.ConfigError, match="language"):
        one(client, tmp_path, language="klingon")


def test_the_same_text_for_many_pictures(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion(GOOD)))
    folder = make_pictures(tmp_path / "photos", 8)
    found = list(client.describe_many(folder, ASKED, ordered=True, progress=False))
    assert sum(outcome.flags == ("same-text",) for outcome in found) == 5
    for picked in (["same-text"], [*ivl.RULES, NoRed()]):  # each batch begins anew
        more = list(client.describe_many(folder, ASKED, quality=picked, progress=False))
        assert sum("same-text" in outcome.flags for outcome in more) == 5
    same = [(str(number), folder / "000000.png") for number in range(8)]
    assert not any(each.flags for each in client.describe_many(same, ASKED, progress=False))


def test_flags_of_several_prompts_name_them(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(
        lambda heard: Reply(body=completion("Dog." if "tags" not in said(heard) else "dog"))
    )
    outcome = one(
        client, tmp_path, None, prompts={"long": ASKED, "tags": "List tags, comma-separated."}
    )
    assert outcome.flags == ("long: one-word",)


def test_objects_are_held_by_their_schema_and_not_by_rules(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    class Dog(BaseModel):
        name: str

    loopback.will(Reply(body=completion('{"name": "Rex"}')))
    outcome = one(client, tmp_path, None, schema=Dog, on_flag="fail")
    assert outcome.value == Dog(name="Rex")
    assert outcome.flags == ()


def test_parquet_has_the_flags(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    loopback.will(Reply(body=completion("Dog.")))
    one(client, tmp_path, out=tmp_path / "out.parquet")
    [row] = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["flags"] == ["one-word"]


ALT = [
    "A dog carries a red frisbee across a meadow while two children in yellow raincoats run after it"
    " and an old man looks on from a bench.",
    "A dog carries a red frisbee across a wide green meadow, followed by two children in bright yellow"
    " raincoats and watched by a man",
    GOOD,
]


def test_alt_text_is_asked_for_again_shorter_and_never_cut(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    picture = make_pictures(tmp_path / "photos", 1) / "000000.png"
    loopback.will(*(Reply(body=completion(text)) for text in ALT))
    assert client.describe(picture, preset="alt-text").text == GOOD
    prompts = [said(heard) for heard in loopback.chats]
    assert len(prompts) == 3
    assert "125" not in prompts[0]
    assert f"had {len(ALT[0])} characters" in prompts[1]
    assert "at most 80 characters" in prompts[1]
    assert loopback.chats[0].json["max_tokens"] == 80

    loopback.heard.clear()
    loopback.will(*(Reply(body=completion(text)) for text in ALT[:2]))
    with pytest.raises(ivl.AnswerFlaggedError) as caught:
        client.describe(picture, preset="alt-text")
    assert len(loopback.chats) == 3
    assert caught.value.text in ALT[:2]
    assert caught.value.flags == ("too-long",)

    async def with_async() -> ivl.Description:
        async with ivl.AsyncClient(base_url=loopback.url) as other:
            return await other.describe(picture, preset="alt-text")

    loopback.will(*(Reply(body=completion(text)) for text in ALT))
    assert asyncio.run(with_async()).text == GOOD


def test_presets_in_a_batch(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    loopback.will(*(Reply(body=completion(text)) for text in ALT))
    outcome = one(client, tmp_path, None, preset="alt-text", out=tmp_path / "out.jsonl")
    assert (outcome.text, outcome.attempts) == (GOOD, 3)
    loopback.will(Reply(body=completion(ALT[0])))
    failed = one(client, tmp_path, None, preset="alt-text", out=tmp_path / "bad.jsonl")
    assert isinstance(failed.error, ivl.AnswerFlaggedError)
    [line] = lines(tmp_path / "bad.jsonl")
    assert line["error"]["text"] == ALT[0]
    assert line["attempts"] == 3


def test_a_preset_is_part_of_what_a_run_is_known_by(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion(GOOD)))
    out = tmp_path / "out.jsonl"
    one(client, tmp_path, None, preset=ivl.lora("ohwx"), out=out)
    folder, quiet = tmp_path / "photos", {"out": out, "progress": False}
    assert list(client.describe_many(folder, preset=ivl.lora("ohwx"), **quiet)) == []
    [other] = client.describe_many(folder, preset=ivl.lora("sks"), **quiet)
    assert other.text == "sks, a dog carries a red frisbee across a meadow."
    assert len(lines(out)) == 2


def test_options_of_the_call_win_over_the_presets(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("dog, meadow, frisbee, summer")))
    found = one(client, tmp_path, None, preset="tags", max_tokens=33)
    assert found.text == "dog, meadow, frisbee, summer"
    assert loopback.chats[0].json["max_tokens"] == 33
    with pytest.raises(ivl.ConfigError, match="preset"):
        one(client, tmp_path, None, preset="tags", prompts={"a": "b"})


def test_a_file_keeps_what_the_ladder_did(
    client: ivl.Client, loopback: Loopback, tmp_path: Path
) -> None:
    loopback.will(Reply(body=completion("Dog.")))
    told: list[ivl.BatchProgress] = []
    folder = make_pictures(tmp_path / "photos", 3)
    with client.describe_many(folder, ASKED, on_flag="retry", progress=told.append) as batch:
        list(batch)
    assert (batch.summary.flagged, batch.summary.asked_again) == (3, 3)
    assert "3 flagged" in str(batch.summary)


MINE: Callable[[ivl.Answer], bool] = lambda answer: "red" not in answer.words  # noqa: E731


class NoRed:
    name = "no-red"
    broken = staticmethod(MINE)


def test_a_rule_of_ones_own(client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
    loopback.will(Reply(body=completion("A blue dog.")), Reply(body=completion(GOOD)))
    outcome = one(client, tmp_path, quality=[*ivl.RULES, NoRed()], on_flag="retry")
    assert outcome.text == GOOD
    assert outcome.tried[0] == "first: no-red"
    json.dumps(outcome.tried)
