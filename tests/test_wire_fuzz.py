"""Ten thousand damaged answers and streams: only our errors come out, and nothing hangs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

import internvl_modal as ivl
from internvl_modal.protocol.completion import decode_completion, decode_models
from internvl_modal.protocol.completion_stream import CompletionStream
from internvl_modal.protocol.http import HttpResponse
from tests.loopback import completion, models_list, stream_events
from tests.test_wire import ERRORS, make_call

ROUNDS = 10_000
ODD = [
    None,
    True,
    -1,
    0,
    1e308,
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"error": {}},
    {"message": []},
]


def bodies() -> list[bytes]:
    documents = [
        completion(),
        completion("", finish="length"),
        models_list(),
        *(e[1] for e in ERRORS),
    ]
    return [d if isinstance(d, bytes) else json.dumps(d).encode() for d in documents]


def damage(data: bytes, chance: random.Random) -> bytes:
    """Flip, drop, double or cut a few places."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(out))
        match chance.randrange(5):
            case 0 if out:
                out[at % len(out)] = chance.randrange(256)
            case 1:
                del out[at : at + chance.randint(1, 20)]
            case 2:
                out[at:at] = out[at : at + 40]
            case 3:
                del out[at:]
            case _:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(out)


def swap(value: object, chance: random.Random) -> object:
    """The same document with a few values of another kind."""
    if chance.random() < 0.15:
        return chance.choice(ODD)
    if isinstance(value, dict):
        return {key: swap(item, chance) for key, item in value.items() if chance.random() > 0.05}
    if isinstance(value, list):
        return [swap(item, chance) for item in value]
    return value


def damaged_bodies(chance: random.Random) -> Iterator[bytes]:
    known = bodies()
    for _ in range(ROUNDS // 2):
        yield damage(chance.choice(known), chance)
    parsed = [json.loads(body) for body in known if body[:1] == b"{"]
    for _ in range(ROUNDS // 2):
        yield json.dumps(swap(chance.choice(parsed), chance)).encode()


def test_damaged_answers() -> None:
    chance = random.Random(1)
    call, good = make_call(), 0
    headers = [{}, {"retry-after": "\x00", "x-request-id": ""}, {"retry-after": "Mon, 99"}]
    for body in damaged_bodies(chance):
        response = HttpResponse(
            chance.choice([200, 200, 200, 400, 404, 429, 500, 503]), chance.choice(headers), body
        )
        for decode in (lambda r: decode_completion(r, call), decode_models):
            try:
                decode(response)
                good += 1
            except ivl.ServerError as error:
                assert len(str(error)) < 3000
    assert good > 100


def test_damaged_streams() -> None:
    chance = random.Random(2)
    whole = b"".join(stream_events("A ", "cat.", "喵"))
    good = 0
    for _ in range(ROUNDS):
        data = damage(whole, chance)
        stream = CompletionStream(make_call(stop=["END"]))
        try:
            while data:
                size = chance.randint(1, 200)
                for piece in stream.feed(data[:size]):
                    assert isinstance(piece, str)
                data = data[size:]
            stream.finish()
            good += 1
        except ivl.ServerError:
            continue
    assert good > 100


def test_an_endless_line_is_refused() -> None:
    stream = CompletionStream(make_call())
    with pytest.raises(ivl.ServerError, match="line of more than"):
        for _ in range(2000):
            list(stream.feed(b"x" * 1000))
