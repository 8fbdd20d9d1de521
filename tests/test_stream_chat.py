"""A conversation answered piece by piece, by both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.loopback import Loopback, Reply, stream_events

PICTURE = Image.new("RGB", (900, 900), "red")
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "text": "What is it?", "images": [PICTURE]},
    {"role": "assistant", "text": "A cat."},
    {"role": "user", "text": "And this?", "images": [PICTURE]},
]
Ask = Callable[..., tuple[list[str], ivl.Description]]


def _sync(loopback: Loopback, messages: Sequence[Any], **options: Any) -> Any:
    with ivl.Client(loopback.url) as client:
        stream = client.stream_chat(messages, **options)
        return list(stream), stream.description


def _async(loopback: Loopback, messages: Sequence[Any], **options: Any) -> Any:
    async def run() -> object:
        async with ivl.AsyncClient(loopback.url) as client:
            stream = client.stream_chat(messages, **options)
            return [piece async for piece in stream], stream.description

    return asyncio.run(run())


@pytest.fixture(params=[_sync, _async])
def ask(request: pytest.FixtureRequest) -> Ask:
    made: Ask = request.param
    return made


def test_pieces_and_the_whole(ask: Ask, loopback: Loopback) -> None:
    loopback.will(Reply(chunks=stream_events("A ", "dog.", prompt_tokens=10_000)))
    pieces, description = ask(loopback, MESSAGES, max_tokens=9)
    assert pieces == ["A ", "dog."]
    assert (description.text, description.seen, len(description.images)) == (
        "A dog.",
        "confirmed",
        2,
    )
    sent = loopback.chats[0].json
    assert (sent["stream"], sent["max_tokens"]) == (True, 9)
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]


def test_both_clients_ask_the_same(loopback: Loopback) -> None:
    loopback.will(*[Reply(chunks=stream_events("A dog.", prompt_tokens=10_000))] * 2)
    _sync(loopback, MESSAGES)
    _async(loopback, MESSAGES)
    one, other = loopback.chats
    assert one.body == other.body


@pytest.mark.parametrize(
    "messages", [[], [{"role": "assistant", "text": "A cat."}], [{"role": "user", "txt": "?"}]]
)
def test_messages_are_checked(ask: Ask, loopback: Loopback, messages: list[Any]) -> None:
    with pytest.raises(ivl.ConfigError, match="messages"):
        ask(loopback, messages)
    assert not loopback.heard


def test_a_picture_not_seen_is_told_at_the_end(ask: Ask, loopback: Loopback) -> None:
    loopback.will(Reply(chunks=stream_events("A dog.", prompt_tokens=20)))
    with pytest.raises(ivl.ImageNotSeenError):
        ask(loopback, MESSAGES)
