"""What is for asyncio takes what its twin takes, and neither holds up a loop."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable

import pytest
from aiohttp import web

from internvl_modal.deployment.api import aconnect, adeploy, connect, deploy
from tests.deploy.machine import Machine
from tests.deploy.test_deployment import QUICK, SMALL

TICKS = """
import asyncio, time
async def waiting():
    async with ivl.AsyncClient("modal", model="internvl2_5-1b") as client:
        await client.wait_until_ready(6)
async def main():
    longest, last, work = 0.0, time.monotonic(), asyncio.create_task(WORK)
    while not work.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    say([longest, repr(await work)])
"""


@pytest.mark.parametrize(("sync", "twin"), [(deploy, adeploy), (connect, aconnect)])
def test_names_defaults_and_annotations(sync: Callable[..., object], twin: object) -> None:
    assert inspect.signature(sync) == inspect.signature(twin)  # type: ignore[arg-type]
    assert typing.get_type_hints(sync) == typing.get_type_hints(twin)


@pytest.mark.parametrize(
    "work",
    [
        "adeploy('me/My-InternVL', gpu='H100', wait=False)",
        "aconnect('internvl2_5-1b')",
        "waiting()",
    ],
)
def test_a_loop_goes_on(machine: Machine, work: str) -> None:
    """While a Hub or Modal takes four seconds to answer; imports are done before."""
    machine.python(f"say(repr({QUICK}))")

    async def slowly(_: web.Request) -> web.Response:
        import asyncio

        await asyncio.sleep(4)
        return web.json_response({"data": [{"id": "m"}]}, status=404)

    async def start() -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", slowly)
        return await machine.plane.start_site(app)

    machine.env = {"HF_ENDPOINT": machine.plane.run(start())}
    machine.plane.delays["AppGetOrCreate"] = 4
    try:
        longest, _ = machine.python(
            "import internvl_modal.backends.modal, huggingface_hub, internvl_modal.weights.hub\n"
            f"import modal\nWARM = connect({SMALL!r})\n"
            + TICKS.replace("WORK)", f"attempted({work}))")
            + "async def attempted(work):\n"
            "    try:\n"
            "        return await work\n"
            "    except InternVLError as error:\n"
            "        return error\n"
            "asyncio.run(main())"
        )
    finally:
        machine.plane.delays.clear()
    assert longest < 2
