"""What ``describe_many`` returns: numbers, an end of its own, and nothing that hangs."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.flows.steps import Blocking, Flow, adrive, drive
from tests.loopback import Loopback

PICTURE = Image.new("RGB", (9, 9))


class Stop(BaseException):
    """As pytest's own for a test that fails or is skipped."""


def test_numbers_meanwhile_and_afterwards(loopback: Loopback) -> None:
    with ivl.Client(base_url=loopback.url) as client:
        batch = client.describe_many([PICTURE] * 5, progress=False)
        assert batch.progress.done == 0
        with pytest.raises(ivl.ConfigError, match="has not ended"):
            _ = batch.summary
        assert next(batch).ok
        assert 1 <= batch.progress.described <= 5
        assert len(list(batch)) == 4
        assert batch.summary.described == 5
        assert batch.progress == batch.summary


def test_left_early_it_ends(loopback: Loopback) -> None:
    before = threading.active_count()
    with ivl.Client(base_url=loopback.url) as client:
        with client.describe_many(((f"k{n}", PICTURE) for n in range(9)), progress=False) as batch:
            next(batch)
        assert list(batch) == []
        assert batch.summary.done >= 1
        client.describe_many([PICTURE]).close()  # never begun
    names = [each.name for each in threading.enumerate()]
    assert "internvl-batch" not in names
    # Nobody waits for the others, which end as soon as they get to it.
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_in_an_event_loop(loopback: Loopback) -> None:
    async def run() -> None:
        async with ivl.AsyncClient(base_url=loopback.url) as client:
            async with client.describe_many([PICTURE] * 50, progress=False) as batch:
                async for outcome in batch:
                    assert outcome.ok
                    break
            assert 1 <= batch.summary.described <= 50
            assert [outcome async for outcome in batch] == []

    asyncio.run(run())


def leave(*_: object) -> None:
    sys.exit("enough")


def stop(*_: object) -> None:
    raise Stop


def leaving() -> Iterator[Any]:
    yield "k", PICTURE
    sys.exit("enough")


@pytest.mark.parametrize(
    ("images", "options", "kind"),
    [
        (leaving, {}, SystemExit),
        (None, {"out": leave}, SystemExit),
        (None, {"progress": leave}, SystemExit),
        (None, {"out": stop}, Stop),
        (None, {"progress": stop}, Stop),
        (None, {"out": stop, "ordered": True}, Stop),
    ],
)
def test_what_is_no_exception_ends_it_too(
    loopback: Loopback, images: Any, options: dict[str, Any], kind: type[BaseException]
) -> None:
    many = images() if images else {f"k{number}": PICTURE for number in range(600)}
    given: dict[str, Any] = {"progress": False, **options}
    with ivl.Client(base_url=loopback.url) as client, pytest.raises(kind):
        list(client.describe_many(many, **given))


@pytest.mark.parametrize("kind", [ValueError, Stop, KeyboardInterrupt])
def test_whatever_a_step_raises_is_raised_in_the_flow(kind: type[BaseException]) -> None:
    ended = []

    def fail() -> None:
        raise kind

    def flow() -> Flow[str]:
        try:
            yield Blocking(fail)
        except ValueError:
            return "went on"
        finally:
            ended.append(True)
        return "never"

    def perform(step: Any) -> Any:
        raise AssertionError("no exchange")

    if kind is ValueError:
        assert drive(flow(), perform) == "went on"
    else:
        with pytest.raises(kind):
            drive(flow(), perform)
    if kind is not KeyboardInterrupt:
        with pytest.raises(Stop) if kind is Stop else _nothing():
            asyncio.run(adrive(flow(), perform))
    assert all(ended)


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of descriptors")
def test_a_want_of_descriptors_is_no_pictures_fault(loopback: Loopback, tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out.jsonl"
    folder.mkdir()
    for number in range(120):
        PICTURE.save(folder / f"{number}.png")
    script = f"""
import internvl_modal as ivl
with ivl.Client(base_url={loopback.url!r}, retry=ivl.Retry(initial=0.01)) as client:
    try:
        for outcome in client.describe_many({str(folder)!r}, out={str(out)!r}, progress=False): pass
    except ivl.InternVLError as error:
        print(error)
"""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    subprocess.run([sys.executable, "-c", script], preexec_fn=few, check=False, timeout=100)
    lines = out.read_text().splitlines() if out.exists() else []
    assert not [line for line in lines if '"error"' in line]
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)
    assert len(out.read_text().splitlines()) == 120
