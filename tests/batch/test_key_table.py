"""What is remembered of a million inputs, and what it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_modal.batch.key_table import KeyTable
from internvl_modal.batch.sinks.base import SeenKeys

NUMBERS = st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(st.integers(1, 2**64 - 1) | st.integers(1, 9), NUMBERS), max_size=3000))
def test_a_table_is_a_dictionary(pairs: list[tuple[int, int]]) -> None:
    table, plain = KeyTable(1), dict[int, int]()
    for key, number in pairs:
        assert (key in table) == (key in plain)
        table.put(key, number)
        plain[key] = number
    assert {key: table.get(key) for key in plain} == {key: (n,) for key, n in plain.items()}


def test_keys_that_share_a_place_are_told_apart() -> None:
    table = KeyTable()
    for number in range(1, 1500):
        table.put(number << 32)
    assert all(number << 32 in table for number in range(1, 1500))
    assert 1500 << 32 not in table


def test_what_was_described_under_a_key_is_remembered() -> None:
    seen = SeenKeys()
    seen.note("a", content="00000000000000ff")
    assert seen.content("a") == "00000000000000ff"
    assert seen.content("b") == ""
    assert seen.other("a", "00000000000000fe") == "00000000000000ff"
    assert seen.other("a", "00000000000000ff") == ""
    assert seen.other("b", "00000000000000fe") == ""
    assert not seen.claim("b")
    assert seen.claim("b")


MEMORY = """
from pathlib import Path
from internvl_modal.batch.sinks.base import SeenKeys
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.keys import Naming

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

naming, seen = Naming(Choice(None, None, None, None), max_pixels=1, digests=True), SeenKeys()
before = resident()
for number in range(100_000):
    item = naming((f"key-{number}", f"photos/{number:07}.jpg"), number)
    assert not seen.other(item.key, item.content)
    assert not seen.claim(item.key, item.former)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_thousand_keys_take_less_than_22_mb() -> None:
    """The arrays double, so that it grows in steps: a million take 120 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout) < 22_000
