"""The pretended workspace itself."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from modal_proto import api_pb2 as p

from tests.modal_plane import Plane
from tests.modal_plane.bell import Bell
from tests.modal_plane.containers import Container

STEPS = 6


@pytest.mark.parametrize("seconds", [0, 60])
@pytest.mark.parametrize("rung", range(STEPS))
def test_who_is_cancelled_twice_keeps_nobody_from_hearing(rung: int, seconds: float) -> None:
    async def attempt(cancelled: tuple[int, int]) -> None:
        bell = Bell()
        given_up = asyncio.create_task(bell.heard(seconds))
        for step in range(STEPS):
            if step in cancelled:
                given_up.cancel()
            if step == rung:
                bell.ring()
            await asyncio.sleep(0)
        await asyncio.wait({given_up})
        listening = asyncio.create_task(bell.heard(60))
        await asyncio.sleep(0)
        bell.ring()
        await asyncio.wait_for(listening, 5)

    for cancelled in itertools.combinations(range(STEPS), 2):
        asyncio.run(attempt(cancelled))


def test_what_waits_is_left_to_the_newer_version() -> None:
    """And fails with it where that cannot take it either."""

    async def attempt(plane: Plane) -> None:
        old, new = [await ended(plane, task) for task in ("ta-old", "ta-new")]
        plane.containers["fu-1"], plane.successors["fu-1"] = old, new
        call = await plane.open_call("fu-1")
        call.inputs["in-1"] = 0
        plane.queues["fu-1"].append(
            p.FunctionGetInputsItem(input_id="in-1", function_call_id=call.call_id)
        )
        await plane._watch(old)
        assert (plane.containers, plane.successors) == ({"fu-1": new}, {})
        assert not call.outputs
        await plane._watch(new)
        assert [output.input_id for output in call.outputs] == ["in-1"]

    with Plane() as plane:
        plane.run(attempt(plane))


async def ended(plane: Plane, task_id: str) -> Container:
    """A container that has ended by itself."""
    process = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
    await plane.open_socket(task_id, plane.root / f"{task_id}.sock")
    return Container(task_id, "fu-1", "ap-1", p.Function(), process, 0.0)
