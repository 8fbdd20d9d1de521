"""What objects look like: a line in a terminal, a card in a notebook, a dict for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.schema.results import ImageInfo

HOSTILE = "<script>alert(1)</script> a \"cat\" & 'dog'"
INFO = ImageInfo(
    source=HOSTILE,
    width=800,
    height=600,
    format="JPEG",
    sent_width=800,
    sent_height=600,
    sent_format="image/jpeg",
    bytes_sent=80_000,
    grid=(4, 3),
    tiles=13,
    tokens=3328,
    max_tiles=12,
)
DESCRIPTION = ivl.Description(
    text=HOSTILE,
    model="demo",
    finish_reason="length",
    usage=ivl.Usage(prompt_tokens=3400, completion_tokens=20),
    images=(INFO,),
    warnings=("a warning with <b>",),
    reasoning="<i>hm</i>",
)


def made() -> dict[str, Any]:
    draft = ivl.deploy("internvl2_5-8b", gpu="L40S", env={"MY_TOKEN": "hush"}, dry_run=True)
    return {
        "Description": DESCRIPTION,
        "Estimate": ivl.Client(base_url="http://127.0.0.1:9/v1").estimate(
            Image.new("RGB", (800, 600))
        ),
        "Outcome": ivl.Outcome(HOSTILE, Image.new("RGB", (30, 20), "red"), DESCRIPTION),
        "a failure": ivl.Outcome("b.jpg", b"", error=ivl.ConfigError(HOSTILE), flags=("empty",)),
        "Plan": ivl.plan("internvl2_5-8b", prices="catalogue"),
        "Deployment": draft,
        "DeploymentSpec": draft.spec,
        "CachedModel": ivl.CachedModel(
            "me/" + HOSTILE, "0" * 40, 3_000_000, False, datetime.now(timezone.utc)
        ),
    }


class Checked(HTMLParser):
    """Every element is closed, none runs, and nothing is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        for name, value in attrs:
            assert name not in ("onclick", "onerror", "href")
            assert name != "src" or (value or "").startswith("data:image/")
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", list(made()))
def test_each_has_a_line_a_card_and_a_dict(name: str) -> None:
    thing = made()[name]
    assert "\n" not in repr(thing)
    assert len(repr(thing)) < 300
    page = Checked()
    page.feed(thing._repr_html_())
    assert not page.open
    assert page.text
    told = json.dumps(thing.to_dict())
    assert "hush" not in told + page.text


def test_an_outcome_shows_its_picture_and_its_text(tmp_path: Path) -> None:
    shown = made()["Outcome"]._repr_html_()
    assert "data:image/" in shown
    assert "alert(1)" in shown
    assert repr(made()["a failure"]).startswith("Outcome('b.jpg', ConfigError(")
    assert repr(made()["Outcome"]).count("\n") == 0


def test_a_description_says_how_it_ended_and_whether_it_was_seen() -> None:
    page = Checked()
    page.feed(DESCRIPTION._repr_html_())
    for words in ("cut at max_tokens", "picture unverifiable", "3420 tokens", "a warning with <b>"):
        assert words in page.text


def test_a_plan_shows_its_picture_without_pyplot() -> None:
    code = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "import internvl_modal as ivl\n"
        "shell = InteractiveShell.instance()\n"
        "figure = ivl.plan('internvl3_5-2b', prices='catalogue').plot()\n"
        "print(sorted(shell.display_formatter.format(figure)[0]), 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['image/png', 'text/plain'] False\n"
