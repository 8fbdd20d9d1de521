"""Presets: what they ask, what they accept, and what they do with what they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.captions.presets.limits import estimated_tokens
from internvl_modal.captions.presets.registry import preset_of
from internvl_modal.schema.options import DescribeOptions
from tests.captions.measure import labelled

GOOD = {
    "alt-text": "A dog carries a red frisbee across a meadow.",
    "caption": "Two children build a sandcastle close to the water.",
    "dense": "A stone bridge with three arches crosses a narrow river between green banks. On the"
    " left stands a mill with a wooden wheel, and behind it a church with a slate roof rises above"
    " the trees, all in the soft light of an evening in autumn.",
    "tags": "dog, frisbee, meadow, summer",
    "ocr": "EXIT\nThis way",
    "lora": "A dog lies on a red sofa next to a lamp.",
}
BAD = {
    "alt-text": [
        ("A dog carries a red frisbee. " * 6, "too-long"),
        ("A dog carries a red", "unfinished"),
        ("Dog with frisbee", "unfinished"),
        ("An image of a dog with a frisbee.", "opener"),
        ("I'm sorry, but I can't help with that request.", "refusal"),
        ("", "empty"),
    ],
    "caption": [("Dog.", "one-word"), ("The image shows a dog on a sofa.", "opener")],
    "dense": [("A dog on a sofa.", "too-short")],
    "tags": [("A dog lies on a sofa next to a lamp and sleeps.", "no-tags"), ("dog", "no-tags")],
    "ocr": [("I'm sorry, I can't read the text in this image.", "refusal")],
    "lora": [("a red dog, " * 40 + "and a cat.", "too-many-tokens")],
}


@pytest.mark.parametrize("name", ivl.PRESETS)
def test_a_preset_takes_the_good_and_not_the_bad(name: str) -> None:
    preset = ivl.PRESETS[name]
    assert preset.name == name
    good = ivl.Answer(preset.finish(GOOD[name]), preset.prompt)
    assert preset.checked(good) == ()
    for text, flag in BAD[name]:
        assert flag in preset.checked(ivl.Answer(preset.finish(text), preset.prompt)), text
    DescribeOptions.parse(preset.options)


@pytest.mark.parametrize("length", [124, 125, 126])
def test_alt_text_has_at_most_125_characters(length: int) -> None:
    text = "A dog" + " runs" * 40
    text = text[: length - 1] + "."
    found = ivl.PRESETS["alt-text"].checked(ivl.Answer(text, "Describe."))
    assert ("too-long" in found) == (length > 125)


def test_asks_again_for_less() -> None:
    preset = ivl.PRESETS["alt-text"]
    text = "A {characters} dog. " * 20
    asked = preset.asked(text, ("too-long",))
    assert asked.startswith(preset.prompt)
    assert f"{len(text)} characters" in asked
    assert "A {characters} dog." in asked  # what a model writes is no template
    assert preset.asked("", ("empty",)) == preset.prompt


def test_a_lora_has_its_trigger_word_and_not_what_is_left_out() -> None:
    preset = ivl.lora("ohwx dog", leave_out=["collar", "spots"], tokens=40)
    assert "collar, spots" in preset.prompt
    text = preset.finish("A dog lies on a sofa.")
    assert text == "ohwx dog, a dog lies on a sofa."
    assert preset.finish(text) == text
    assert preset.checked(ivl.Answer(text, preset.prompt)) == ()
    for named in ("with a Collar.", "with two collars."):
        found = preset.checked(ivl.Answer(f"ohwx dog, a dog {named}", preset.prompt))
        assert found == ("named",)


def test_tokens_are_counted_by_the_callers_tokenizer() -> None:
    long = "A dog lies on a red sofa next to a lamp."
    assert ivl.lora(tokens=8).checked(ivl.Answer(long)) == ("too-many-tokens",)
    assert ivl.lora(tokens=8, count=lambda text: 8).checked(ivl.Answer(long)) == ()
    assert ivl.lora(tokens=8, count=lambda text: 9).checked(ivl.Answer("A.")) != ()


def test_the_estimate_is_rather_too_high() -> None:
    # By CLIP's own tokenizer, without its two marks.
    counts = json.loads(Path(__file__).with_name("clip_tokens.json").read_text())
    texts = {row["id"]: row["text"] for part in ("shown", "held-back") for row in labelled(part)}
    ratios = []
    for number, count in counts.items():
        estimate = estimated_tokens(texts[int(number)])
        assert estimate >= count, texts[int(number)]
        ratios.append(estimate / count)
    assert len(ratios) >= 300
    assert sum(ratios) / len(ratios) < 1.6  # and not by so much that nothing fits


@pytest.mark.parametrize("wrong", ["alttext", 3, ivl.RULES])
def test_an_unknown_preset_is_an_error(wrong: object) -> None:
    with pytest.raises(ivl.ConfigError, match="alt-text"):
        preset_of(wrong)


def test_a_lora_of_nothing_is_an_error() -> None:
    with pytest.raises(ivl.ConfigError, match="tokens"):
        ivl.lora(tokens=3)
    with pytest.raises(ivl.ConfigError, match="list"):
        ivl.lora(leave_out="collar")
