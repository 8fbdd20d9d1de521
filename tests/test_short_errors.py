"""What somebody sees of an error: their own line, our message, and none of our frames."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal._utils.short_errors import short_errors

SCENE = Path(__file__).parents[1] / "examples" / "images" / "scene.png"
NOBODY = "http://127.0.0.1:9/v1"
ONCE = "retry=ivl.Retry(attempts=1)"
SCRIPTS = {
    "a missing file": "ivl.describe('no-such.jpg', model='demo')",
    "no server": f"ivl.Client(base_url={NOBODY!r}, {ONCE}).describe({str(SCENE)!r})",
    "a stream": f"list(ivl.Client(base_url={NOBODY!r}, {ONCE}).stream({str(SCENE)!r}))",
    "a batch": "list(ivl.describe_many('/no/such/folder', model='demo'))",
    "a wrong option": "ivl.describe('a.jpg', model='demo', max_token=3)",
    "a wrong client": "ivl.Client('nonsense')",
    "a plan": "ivl.plan('internvl2_5-78b', gpu='Q9')",
    "a deployment": "ivl.connect('nobody')",
    "weights": "ivl.WeightsCache('w', endpoint='http://127.0.0.1:9').ensure('me/My-InternVL')",
}
AWAITED = f"""
async def main():
    async with ivl.AsyncClient(base_url={NOBODY!r}, {ONCE}) as client:
        await client.describe({str(SCENE)!r})
asyncio.run(main())"""
STREAMED = AWAITED.replace("await client.describe", "[_ async for _ in client.stream").replace(
    "')\nasyncio", "')]\nasyncio"
)


def ran(code: str) -> str:
    """What a script that fails says on standard error."""
    script = Path("script.py")
    script.write_text(f"import asyncio\nimport internvl_modal as ivl\n{code}\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    return done.stderr


@pytest.mark.parametrize("code", [*SCRIPTS.values(), AWAITED, STREAMED], ids=[*SCRIPTS, "a", "s"])
def test_a_script_ends_with_the_message_and_the_callers_line(code: str) -> None:
    said = ran(code).splitlines()
    assert len(said) <= 25
    assert said[-1].startswith("internvl_modal.errors.")
    inner = [line for line in said if "/internvl_modal/" in line]
    assert all("short_errors.py" in line for line in inner)
    assert any("script.py" in line for line in said)
    assert "another exception" not in "".join(said)
    assert "direct cause" not in "".join(said)


def test_what_the_callers_own_code_raised_is_shown_whole() -> None:
    def pictures() -> Iterator[str]:
        yield from ()
        raise ivl.ConfigError("mine") from KeyError("cause")

    with pytest.raises(ivl.ConfigError, match="mine") as caught:
        list(ivl.describe_many(pictures(), model="demo"))
    assert isinstance(caught.value.__cause__, KeyError)
    assert any(entry.name == "pictures" for entry in caught.traceback)


def test_the_cause_is_kept_and_the_whole_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="internvl_modal")
    with pytest.raises(ivl.ImageError) as caught:
        ivl.describe("no-such.jpg", model="demo")
    assert caught.value.__cause__ is None
    assert isinstance(caught.value.__context__, FileNotFoundError)
    (record,) = (record for record in caplog.records if record.exc_info)
    assert record.exc_info
    assert record.exc_info[1] is caught.value


def test_no_argument_stays_in_a_frame_that_is_shown() -> None:
    with pytest.raises(ivl.ConfigError) as caught:
        ivl.Client("nonsense", api_key="sk-SECRET")
    frames = [
        frame for frame in caught.traceback if str(frame.path).endswith("_utils/short_errors.py")
    ]
    assert frames
    assert "sk-SECRET" not in str([frame.frame.f_locals for frame in frames])
    assert frames[0].frame.f_locals["self"].__class__ is ivl.Client


def test_a_generator_behind_it_can_be_closed_and_sent_to() -> None:
    ended = []

    @short_errors
    def numbers() -> Iterator[int]:
        try:
            yield 1
            raise ivl.ConfigError("enough")
        finally:
            ended.append(True)

    begun = numbers()
    assert next(begun) == 1
    begun.close()  # type: ignore[attr-defined]
    assert ended
    with pytest.raises(ivl.ConfigError, match="enough"):
        list(numbers())


def test_a_notebook_shows_the_cells_line_the_message_and_the_hint() -> None:
    code = "from IPython.core.interactiveshell import InteractiveShell as S\ns = S.instance()\n"
    cells = "import internvl_modal as ivl", "ivl.describe('no-such.jpg', model='demo')"
    runs = "".join(f"s.run_cell({cell!r})\n" for cell in cells)
    told = subprocess.run(
        [sys.executable, "-c", code + runs], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told == [
        "<module>, line 1: ivl.describe('no-such.jpg', model='demo')",
        "ImageError: no-such.jpg: cannot be read: No such file or directory",
        "give a path, an http(s) URL, a data URL or the bytes of a picture",
    ]


@pytest.mark.parametrize("name", sorted(set(ivl.__all__)))
def test_every_public_call_is_behind_it(name: str) -> None:
    found = getattr(ivl, name)
    if not callable(found) or isinstance(found, type) or "internvl" not in found.__module__:
        return
    code = found.__code__
    assert "short_errors" in code.co_filename, f"{name} needs @short_errors"
