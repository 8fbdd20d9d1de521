"""Both clients against an edge with any faults in any order: nobody pays twice, nobody waits.

INTERNVL_MODAL_TEST_RUNS=20000 python -m pytest tests/transport/test_machine.py --timeout 0
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import internvl_modal as ivl
from internvl_modal._utils.loop_thread import LoopThread
from tests.transport.edge import Edge

RUNS = int(os.environ.get("INTERNVL_MODAL_TEST_RUNS", "200"))
LOST = ("close", "reset", "half")
REFUSED = ("503", "429", "408", "500", "502", "504")
FINAL = ("400", "401", "422")
SCRIPT = st.lists(st.sampled_from(["ok", "303", *LOST, *REFUSED, *FINAL]), max_size=7)
ATTEMPTS = 4


def foretold(script: list[str], resend: int) -> tuple[str, int]:
    """What a question comes to and how often it is POSTed, by the rule as the guide tells it."""
    replies = iter([*script, "ok"])
    posts, lost, placed = 0, 0, False
    for attempt in range(1, ATTEMPTS + 1):
        posts += not placed
        reply = next(replies, "ok")
        while reply == "303":
            placed, reply = True, next(replies, "ok")
        if reply == "ok":
            return "answer", posts
        lost += reply in LOST and not placed
        if reply in FINAL or attempt == ATTEMPTS or lost > resend:
            return "error", posts
    raise AssertionError("unreachable")


class Machine(RuleBasedStateMachine):
    """Questions through clients that live on, so that connections are used again after faults."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = Edge()
        self.edge.hold = 0.0
        self.loop = LoopThread("asking")
        self.clients: dict[tuple[str, int], Any] = {}
        self.number = 0

    def client(self, kind: str, resend: int) -> Any:
        made: Any = {"sync": ivl.Client, "async": ivl.AsyncClient}[kind]
        if (kind, resend) not in self.clients:
            self.clients[kind, resend] = made(
                base_url=self.edge.url,
                model="m",
                timeout=60,
                capabilities=ivl.Capabilities(),
                retry=ivl.Retry(attempts=ATTEMPTS, initial=0, resend=resend),
            )
        return self.clients[kind, resend]

    @rule(kind=st.sampled_from(["sync", "async"]), script=SCRIPT, resend=st.integers(0, 2))
    def ask(self, kind: str, script: list[str], resend: int) -> None:
        self.edge.will(*script)
        self.number += 1
        question, client = f"question {self.number}", self.client(kind, resend)
        try:
            asking = client.chat([{"role": "user", "text": question}])
            found = asking if kind == "sync" else self.loop.call(asking)
            came = "answer"
        except ivl.InternVLError:
            came = "error"
        assert (came, self.edge.posts) == foretold(script, resend)
        if came == "answer":
            assert found.text == question
            assert found.timings.resent <= resend

    @rule(kind=st.sampled_from(["sync", "async"]), resend=st.integers(0, 2))
    def close(self, kind: str, resend: int) -> None:
        if client := self.clients.pop((kind, resend), None):
            if kind == "sync":
                client.close()
            else:
                self.loop.call(client.aclose())

    @invariant()
    def every_connection_is_known(self) -> None:
        assert self.edge.open <= 2 * len(self.clients) + 4

    def teardown(self) -> None:
        for kind, resend in list(self.clients):
            self.close(kind, resend)
        self.loop.call(asyncio.sleep(0))
        self.loop.close()
        self.edge.close()


def test_any_faults_in_any_order() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine, settings=settings(max_examples=RUNS, stateful_step_count=8)
    )
