"""docs/servers.md says of llama.cpp what it answers."""

from __future__ import annotations

from tests.llamacpp.conftest import Engine
from tools import servers_table


def test_the_row_in_the_documentation(tiled_engine: Engine) -> None:
    assert servers_table.page_holds([servers_table.llamacpp(tiled_engine)])
