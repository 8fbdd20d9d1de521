"""docs/servers.md says of vLLM what it answers."""

from __future__ import annotations

from tests.vllm.server import Server
from tools import servers_table


def test_the_row_in_the_documentation(vllm: Server) -> None:
    assert servers_table.page_holds([servers_table.vllm(vllm.url)])
