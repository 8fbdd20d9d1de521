"""The same limits where the bytes come over a client of the user's own."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from typing import Any

import httpx
import pytest

import internvl_modal as ivl
from tests.transport.conftest import KNOWN, QUESTION, Ask, Raw
from tests.transport.test_bounds import ASTRAY, OK, answer, says


def blocking(url: str, hooks: Any = None, **client: Any) -> ivl.Description:
    with (
        httpx.Client(event_hooks=hooks) as own,
        ivl.Client(base_url=url, model="m", http_client=own, **{**KNOWN, **client}) as c,
    ):
        return c.chat(QUESTION)


def awaiting(url: str, hooks: Any = None, **client: Any) -> ivl.Description:
    async def run() -> ivl.Description:
        async with (
            httpx.AsyncClient(event_hooks=hooks) as own,
            ivl.AsyncClient(base_url=url, model="m", http_client=own, **{**KNOWN, **client}) as c,
        ):
            return await c.chat(QUESTION)

    return asyncio.run(run())


@pytest.fixture(params=[blocking, awaiting], ids=["blocking", "awaiting"])
def own(request: pytest.FixtureRequest) -> Ask:
    made: Ask = request.param
    return made


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"identity", OK),
        (b"gzip", gzip.compress(OK)),
        (b"x-gzip", gzip.compress(OK)),
        (b"deflate", zlib.compress(OK)),
    ],
)
def test_a_coding_that_was_not_asked_for(own: Ask, raw: Raw, coding: bytes, body: bytes) -> None:
    says(raw, answer(body, b"content-encoding: " + coding))
    assert own(raw.url).text == "fine"
    assert b"accept-encoding: identity" in raw.requests[0].lower()


@pytest.mark.parametrize(
    "coding",
    [b"gzip, gzip", b"br", b"zstd", b"identity, gzip", b"gzip\r\ncontent-encoding: gzip"],
)
def test_other_codings_are_refused(own: Ask, raw: Raw, coding: bytes) -> None:
    says(raw, answer(gzip.compress(gzip.compress(OK)), b"content-encoding: " + coding))
    with pytest.raises(ivl.ServerError, match="not asked for"):
        own(raw.url)


@pytest.mark.parametrize("status", [200, 500])
def test_a_bomb_is_met_by_the_limit(own: Ask, raw: Raw, status: int) -> None:
    """httpx unpacks 64 KiB of gzip at once, which are 64 MiB."""
    bomb = gzip.compress(bytes(200 * 2**20))
    says(raw, answer(bomb, b"content-encoding: gzip", status=status))
    tracemalloc.start()
    with pytest.raises(ivl.ServerError):
        own(raw.url, retry=ivl.Retry(attempts=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_what_a_hook_has_read(raw: Raw) -> None:
    async def awaited(response: httpx.Response) -> None:
        await response.aread()

    says(raw, answer(gzip.compress(OK), b"content-encoding: gzip"))
    assert blocking(raw.url, {"response": [httpx.Response.read]}).text == "fine"
    assert awaiting(raw.url, {"response": [awaited]}).text == "fine"


@pytest.mark.parametrize("location", [*ASTRAY, b"http:x", b"http://xn--/v1", b"http://[v1.x]/v1"])
@pytest.mark.parametrize("status", [303, 307])
def test_an_address_that_is_not_followed(own: Ask, raw: Raw, location: bytes, status: int) -> None:
    """httpx looks at the address too, and has errors of its own for some."""
    says(raw, answer(b"", b"location: " + location, status=status))
    with pytest.raises(ivl.RequestRejectedError, match="not followed") as caught:
        own(raw.url, api_key="sk-1")
    assert "hidden" not in str(caught.value)
    assert len(raw.requests) == 1
