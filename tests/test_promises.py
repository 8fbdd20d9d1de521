"""The pages that promise something name, for each row, tests that exist and try so much."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["docs/reliability.md", "SECURITY.md"]
NAMED = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")


def rows(page: str) -> list[list[str]]:
    """The cells of each row: fault or attempt, promise, tests, tried, wrong."""
    lines = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[-1] != "Wrong"]


@pytest.fixture(scope="module")
def cases() -> Counter[str]:
    """How many cases each of the tests has that are named, as pytest collects them."""
    named = {name for page in PAGES for row in rows(page) for name in NAMED.findall(row[2])}
    files = sorted({name.partition("::")[0] for name in named})
    # A run by several workers tells its children so, by these variables.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *files], cwd=ROOT, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Counter(line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line)


@pytest.mark.parametrize("page", PAGES)
def test_every_row_is_shown_by_tests_that_exist(page: str, cases: Counter[str]) -> None:
    found = rows(page)
    assert len(found) > 20
    for row in found:
        assert len(row) == 5, row
        names = row[2].split(", ")
        assert all(NAMED.fullmatch(name) for name in names), row
        missing = [name for name in NAMED.findall(row[2]) if not cases[name]]
        assert not missing, f"{row[0]}: no such test"


@pytest.mark.parametrize("page", PAGES)
def test_so_many_cases_are_tried(page: str, cases: Counter[str]) -> None:
    for fault, _, tests, tried, wrong in rows(page):
        counted = re.fullmatch(r"([\d,]+) cases?", tried)
        assert counted or re.match(r"[\d,]+ ", tried), fault
        assert wrong == "0", fault
        if counted:
            there = sum(cases[name] for name in NAMED.findall(tests))
            assert int(counted[1].replace(",", "")) <= there, f"{fault}: {there} cases"
