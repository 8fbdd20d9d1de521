"""The pretended workspace itself."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.modal_plane.bell import Bell

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
