"""What a user sees who has set nothing up: warnings in scripts, once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import internvl_modal as ivl
from tests.documented import ROOT

PHOTO = ROOT / "examples" / "images" / "coffee.jpg"
DEMO = f"ivl.describe({str(PHOTO)!r}, model='demo')\n"


def said(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What a script says."""
    script = f"import warnings, internvl_modal as ivl\n{code}"
    return subprocess.run(
        [sys.executable, *options, "-c", script], capture_output=True, text=True, check=False
    )


def test_the_demo_model_says_once_what_it_is_worth() -> None:
    told = said("warnings.simplefilter('default')\n".join([DEMO] * 3)).stderr.splitlines()
    assert len(told) == 1
    assert "InternVLWarning: the demo model knows only generated scenes" in told[0]


def test_a_misspelt_variable_is_told_in_python_too() -> None:
    Path(".env").write_text("INTERNVL_MODAL_BASEURL=http://127.0.0.1:9/v1\n")
    told = said("for _ in range(3): ivl.Client('local', model='demo')").stderr.splitlines()
    assert len(told) == 1
    assert "INTERNVL_MODAL_BASEURL, from .env, is no setting; did you mean" in told[0]


def test_the_program_decides_what_becomes_of_it() -> None:
    quiet = said(f"warnings.simplefilter('ignore', ivl.InternVLWarning)\n{DEMO}")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    raised = said(f"warnings.simplefilter('error', ivl.InternVLWarning)\n{DEMO}")
    assert raised.returncode == 1
    assert "InternVLWarning" in raised.stderr
    by_name = said(DEMO, "-W", "ignore:the demo model:UserWarning")
    assert (by_name.returncode, by_name.stderr) == (0, "")


def test_none_of_our_own_variables_counts_as_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    named = re.compile(r"\bINTERNVL_MODAL_[A-Z_]*[A-Z]\b")
    found = {
        name
        for file in (ROOT / "internvl_modal").rglob("*.py")
        for name in named.findall(file.read_text())
    }
    assert {"INTERNVL_MODAL_CONTAINER", "INTERNVL_MODAL_BASE_URL"} <= found
    for name in found:
        monkeypatch.setenv(name, "1")
    ivl.Settings.load()  # a warning would be an error
