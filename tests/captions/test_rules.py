"""The rules, measured on answers that were labelled before there were any."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import internvl_modal as ivl
from internvl_modal.captions.answer import wanted
from internvl_modal.captions.language import is_other, known
from internvl_modal.captions.rules import RULES, SameText, chosen, flags
from tests.captions.measure import labelled, measure, table

PAGE = Path(__file__).parents[2] / "docs" / "captions.md"
ASKED = "Describe this image in detail."


def test_half_of_the_answers_are_good_and_half_are_held_back() -> None:
    shown, held = labelled("shown"), labelled("held-back")
    assert len(shown) == len(held) == 200
    assert sum(not row["flags"] for row in (*shown, *held)) == 200
    assert len({(row["text"], row["prompt"]) for row in (*shown, *held)}) == 400
    languages = Counter(row["language"] for row in held if row["flags"])
    assert len(languages) >= 5
    for rule in measure("held-back"):
        assert rule.right + rule.missed >= 6, rule.rule


@pytest.mark.parametrize("measured", measure("held-back"), ids=lambda each: each.rule)
def test_each_rule_is_right_on_what_was_held_back(measured) -> None:  # type: ignore[no-untyped-def]
    assert measured.precision >= 0.95
    assert measured.recall >= 0.8


def test_the_page_shows_what_was_measured() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


def test_the_page_names_every_flag() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for rule in RULES:
        assert re.search(rf"^\| `{rule.name}` \|", page, re.MULTILINE), rule.name


@given(st.text(max_size=400), st.sampled_from(["", ASKED, "Transcribe the text.", "List tags."]))
def test_any_text_can_be_judged(text: str, prompt: str) -> None:
    for language in (None, "en", "zh", "ja", "ru"):
        found = flags(ivl.Answer(text, prompt, language=language))
        assert set(found) <= {rule.name for rule in RULES}
        assert found == ("empty",) or "empty" not in found


@given(st.text(st.sampled_from("abZ09_é我 '\u2019-.,\n\x1f<"), max_size=60))
def test_words_are_runs_of_letters_with_single_signs_inside(text: str) -> None:
    start = text.strip().replace("\u2019", "'").lower()
    assert ivl.Answer(text).words == re.findall(r"\w+(?:['-]\w+)*", start)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("prompt", [ASKED, "Transcribe the text."])
@pytest.mark.parametrize(
    "unit",
    ["(", "a ", '"', "I can't ", "我", "[[1,", "<|", "the image ", "#", "\n", ". ", "a\n", ".)", "1 ",
     "ab. ", "- x\n", "\u2019", "sorry ", "###\n", "「", "é", "a.b"],
)  # fmt: skip
def test_a_hostile_text_is_judged_in_time(unit: str, prompt: str) -> None:
    # What grows with the square of the length takes more than a minute here.
    answer = ivl.Answer("a" + unit * 20_000 + "\n\nx", prompt, language="en")
    flags(answer)
    for preset in ivl.PRESETS.values():
        preset.checked(answer)
        preset.finish(answer.text)


class NoColour:
    name = "no-colour"

    def broken(self, answer: ivl.Answer) -> bool:
        return not {"red", "green", "blue"} & set(answer.words)


def test_rules_can_be_picked_and_added() -> None:
    rules = chosen([*ivl.RULES, NoColour()])
    assert flags(ivl.Answer("A cat sits on a sofa."), rules) == ("no-colour",)
    assert flags(ivl.Answer("A red cat sits on a sofa."), rules) == ()
    assert [rule.name for rule in chosen(["empty", "cut"])] == ["empty", "cut"]
    assert chosen(True) == ivl.RULES
    assert chosen(False) == ()


@pytest.mark.parametrize("wrong", ["empty", 3, None, ["nothing"], [3], [NoColour]])
def test_what_is_no_rule_is_an_error(wrong: object) -> None:
    with pytest.raises(ivl.ConfigError):
        chosen(wrong)


def test_the_same_text_is_told_from_the_fourth_picture_on() -> None:
    same, answer = SameText(), ivl.Answer("A dog lies on a rug.", ASKED)
    found = [same.broken(answer, b"%d" % number) for number in range(6)]
    assert found == [False, False, False, True, True, True]
    assert not same.broken(answer, b"0")  # of the first three, asked again
    assert not same.broken(ivl.Answer("A cat lies on a rug.", ASKED), b"7")


def test_the_same_picture_may_have_the_same_text() -> None:
    same, answer = SameText(), ivl.Answer("A dog lies on a rug.", ASKED)
    assert not any(same.broken(answer, b"one") for _ in range(50))


def test_short_answers_to_questions_may_be_the_same() -> None:
    same, answer = SameText(), ivl.Answer("2", "How many people are there?")
    assert not any(same.broken(answer, b"%d" % number) for number in range(50))


def test_white_space_and_case_make_no_other_text() -> None:
    same = SameText()
    texts = ["A dog.", "a dog", "A  dog!", "\nA DOG."]
    found = [same.broken(ivl.Answer(text, ASKED), text.encode()) for text in texts]
    assert found == [False, False, False, True]


def test_what_it_remembers_is_bounded() -> None:
    same = SameText(most=100)
    for number in range(5000):
        same.broken(ivl.Answer(f"Picture {number} of a dog.", ASKED), b"%d" % number)
        # One that comes again and again is not forgotten for those that come once.
        if number % 50 == 0:
            stuck = same.broken(ivl.Answer("A stuck server.", ASKED), b"s%d" % number)
    assert stuck
    assert len(same._seen) == 100


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (ASKED, "sentences"),
        ("What is happening in this picture?", "sentences"),
        ("请描述这张图片", "sentences"),
        ("Beschreibe das Bild.", "sentences"),
        ("What breed is it? Answer with one word.", "short"),
        ("Transcribe all the text in this image.", "transcript"),
        ("List tags for it, separated by commas.", "list"),
        ("How many dogs are there?", "other"),
        ("", "other"),
    ],
)
def test_what_a_prompt_asks_for(prompt: str, kind: str) -> None:
    assert wanted(prompt) == kind


def test_a_language_that_nobody_can_tell_is_known_as_such() -> None:
    assert known("en")
    assert known("zh")
    assert not known("xx")
    assert not is_other("", "en")
    assert not is_other("12.50 €", "zh")
