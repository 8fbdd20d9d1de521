"""The page does what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch.conftest import make_pictures
from tests.captions.test_gate import GOOD, said
from tests.loopback import Heard, Loopback, Reply, completion
from tests.served import REPOSITORY


def answer(heard: Heard) -> Reply:
    prompt = said(heard)
    if "<ref>" in prompt:
        return Reply(body=completion("<ref>the red cup</ref><box>[[100, 200, 500, 600]]</box>"))
    if heard.json["temperature"] or "headline" in prompt or "alt text" in prompt:
        return Reply(body=completion(GOOD))
    return Reply(body=completion("This image shows a can of coke and"))


@pytest.fixture
def place(loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_pictures(tmp_path / "photos", 3)
    (tmp_path / "photo.jpg").write_bytes(
        (REPOSITORY / "examples" / "images" / "coffee.jpg").read_bytes()
    )
    loopback.will(answer)
    monkeypatch.setenv("INTERNVL_MODAL_BASE_URL", loopback.url)
    return tmp_path


def test_runs_as_shown(place: Path) -> None:
    text = (REPOSITORY / "docs" / "captions.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        env=dict(os.environ), check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for words in (
        "('cut', 'opener')", "'first: cut, opener', 'temperature 0.2: good'", "brand", "captions.html",
        "Side by side", "2b and 8b", "the red cup (",
    ):  # fmt: skip
        assert words in done.stdout, words
    assert (place / "found.png").exists()
    assert (place / "comparison" / "comparison.html").exists()
    assert (place / "photos" / "000000.txt").read_text().startswith("ohwx dog, a dog")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["describe", "photo.jpg", "--preset", "alt-text"], GOOD),
        (["describe", "photo.jpg", "--preset", "lora", "--trigger", "ohwx"], "ohwx, a dog"),
        (["batch", "photos", "--out", "a.jsonl", "--preset", "lora", "--trigger", "ohwx",
          "--leave-out", "collar", "--tokens", "75"], "3 described"),
        (["batch", "photos", "--out", "b.jsonl", "--language", "en"], "3 flagged"),
        (["batch", "photos", "--out", "c.jsonl", "--on-flag", "retry"], "3 described, 0 failed ->"),
        (["batch", "photos", "--out", "d.jsonl", "--no-quality"], "3 described, 0 failed ->"),
        (["batch", "photos", "--out", "e.jsonl", "--max-usd", "1", "--usd-per-hour", "0.5"],
         "3 described"),
    ],
    ids=lambda each: " ".join(each[:4]) if isinstance(each, list) else "",
)  # fmt: skip
def test_commands_run_as_shown(place: Path, command: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_modal", *command],
        env=dict(os.environ), check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert words in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["describe", "photo.jpg", "--preset", "alt"], "there is no preset 'alt'"),
        (["describe", "photo.jpg", "--preset", "tags", "--trigger", "x"], "belongs to --preset lora"),
        (["describe", "photo.jpg", "--preset", "tags", "--stream"], "whole answers"),
        (["batch", "photos", "--out", "a.jsonl", "--max-usd", "1"], "--usd-per-hour"),
        (["batch", "photos", "--out", "a.jsonl", "--on-flag", "shout"], "--on-flag"),
        (["gallery", "nothing.jsonl"], "no file of captions"),
    ],
    ids=lambda each: " ".join(each[:4]) if isinstance(each, list) else "",
)  # fmt: skip
def test_wrong_commands_say_why(place: Path, command: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_modal", *command],
        env=dict(os.environ), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
