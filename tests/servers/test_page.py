"""docs/servers.md says of each server what the client does with it."""

from __future__ import annotations

from internvl_modal.protocol.dialects.registry import DIALECTS
from tools.servers_table import CANNOT, lines, page_holds, scripted


def test_the_rows_of_servers_that_cannot_run_here() -> None:
    assert page_holds(scripted())


def test_every_dialect_has_a_row() -> None:
    assert CANNOT.keys() == DIALECTS.keys()
    found = [line.split(" | ")[-2] for line in lines()[2:]]
    assert sorted(found) == sorted(CANNOT.values())
