"""Where LMDeploy 0.18 differs from 0.7.3, as the documentation says."""

from __future__ import annotations

from tests.conformance.serving import Servers
from tools import servers_table
from tools.lmdeploy_versions import PAGE, tables


def test_the_tables_in_the_documentation_are_what_they_answer(servers: Servers) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables(servers.get).items():
        assert f"<!-- {name}: begin -->\n{table}<!-- {name}: end -->" in page


def test_their_rows_among_all_servers(servers: Servers) -> None:
    assert servers_table.page_holds(servers_table.lmdeploy(servers))
