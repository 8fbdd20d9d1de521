"""Many requests at once, and requests that nobody waits for any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.vllm.server import Server

PICTURE = Image.new("RGB", (448, 448), "red")
ENDLESS = 12000
"""Tokens that fit into the context: random weights do not end by themselves, and write all."""
STOPPED = ENDLESS // 2
"""Fewer were written by a server that was stopped; it writes some hundreds a second."""


def test_32_at_once_get_their_own_answers(vllm: Server) -> None:
    async def ask(client: ivl.AsyncClient, number: int) -> int:
        answer = await client.describe(PICTURE, "?" * number, system="-", max_tokens=8)
        return answer.usage.prompt_tokens

    async def ask_all() -> list[int]:
        async with ivl.AsyncClient(base_url=vllm.url, retry=ivl.Retry(attempts=1)) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(1, 33)))

    counts = asyncio.run(ask_all())
    assert [count - counts[0] for count in counts] == list(range(32))


def test_a_batch(client: ivl.Client, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (100 + number, 100), "blue").save(folder / f"{number:02}.png")
    (folder / "05.png").write_bytes(b"no picture")
    outcomes = list(client.describe_many(folder, max_tokens=8))
    assert len({outcome.key for outcome in outcomes}) == 12
    assert [Path(outcome.key).name for outcome in outcomes if outcome.error] == ["05.png"]


def test_a_stream_that_is_left_is_not_written_to_its_end(vllm: Server) -> None:
    before = vllm.idle()
    with ivl.Client(base_url=vllm.url) as client:
        pieces = iter(client.stream(PICTURE, max_tokens=ENDLESS))
        assert next(pieces)
        pieces.close()
        assert vllm.idle() - before < STOPPED


def test_an_async_stream_that_is_left_is_not_written_to_its_end(vllm: Server) -> None:
    async def leave() -> None:
        async with ivl.AsyncClient(base_url=vllm.url) as client:
            async for _ in client.stream(PICTURE, max_tokens=ENDLESS):
                break

    before = vllm.idle()
    asyncio.run(leave())
    assert vllm.idle() - before < STOPPED


def test_a_task_that_is_cancelled_stops_the_server_too(vllm: Server) -> None:
    async def cancel() -> None:
        async with ivl.AsyncClient(base_url=vllm.url) as client:
            task = asyncio.create_task(client.describe(PICTURE, max_tokens=ENDLESS))
            while not await asyncio.to_thread(vllm.busy):
                assert not task.done(), task
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    before = vllm.idle()
    asyncio.run(cancel())
    assert vllm.idle() - before < STOPPED


@pytest.mark.parametrize("streamed", [False, True])
def test_time_is_up(vllm: Server, streamed: bool) -> None:
    before = vllm.idle()
    with ivl.Client(base_url=vllm.url) as client, pytest.raises(ivl.DeadlineExceededError):
        if streamed:
            list(client.stream(PICTURE, max_tokens=ENDLESS, timeout=2))
        else:
            client.describe(PICTURE, max_tokens=ENDLESS, timeout=2)
    assert vllm.idle() - before < STOPPED
