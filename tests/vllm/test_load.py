"""Many requests at once, and requests that nobody waits for any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.vllm.server import Server

PICTURE = Image.new("RGB", (448, 448), "red")
ENDLESS = 16000
"""Tokens; greedy random weights do not end by themselves, and this takes half a minute."""


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
        assert vllm.idle() - before < ENDLESS


def test_an_async_stream_that_is_left_is_not_written_to_its_end(vllm: Server) -> None:
    async def leave() -> None:
        async with ivl.AsyncClient(base_url=vllm.url) as client:
            async for _ in client.stream(PICTURE, max_tokens=ENDLESS):
                break

    before = vllm.idle()
    asyncio.run(leave())
    assert vllm.idle() - before < ENDLESS


def test_a_task_that_is_cancelled_stops_the_server_too(vllm: Server) -> None:
    async def cancel(client: ivl.AsyncClient, prompt: str) -> bool:
        """Whether there was a task to cancel: random weights may end an answer at once."""
        task = asyncio.create_task(client.describe(PICTURE, prompt, max_tokens=ENDLESS))
        while not (task.done() or await asyncio.to_thread(vllm.busy)):
            pass
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    async def cancel_one() -> bool:
        async with ivl.AsyncClient(base_url=vllm.url) as client:
            return any([await cancel(client, prompt) for prompt in ("?", "Say!", "What is this?")])

    before = vllm.idle()
    assert asyncio.run(cancel_one())
    assert vllm.idle() - before < ENDLESS


@pytest.mark.parametrize("streamed", [False, True])
def test_time_is_up(vllm: Server, streamed: bool) -> None:
    before = vllm.idle()
    with ivl.Client(base_url=vllm.url) as client, pytest.raises(ivl.DeadlineExceededError):
        if streamed:
            list(client.stream(PICTURE, max_tokens=ENDLESS, timeout=2))
        else:
            client.describe(PICTURE, max_tokens=ENDLESS, timeout=2)
    assert vllm.idle() - before < ENDLESS
