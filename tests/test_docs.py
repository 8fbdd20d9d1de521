"""The README and the guide, executed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documented import answer
from tests.loopback import Loopback
from tests.test_client import write_video

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    shutil.copy(ROOT / "examples" / "images" / "coffee.jpg", tmp_path / "photo.jpg")
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "examples" / "images")
    write_video(tmp_path / "clip.mp4", seconds=1)
    with Loopback() as loopback:
        loopback.will(answer)
        monkeypatch.setenv("INTERNVL_MODAL_BASE_URL", loopback.url)
        yield loopback


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_every_block_runs(server: Loopback, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks(name)
    assert len(found) >= 5
    names: dict[str, object] = {"__name__": "example"}
    for block in found:
        exec(block.replace("http://127.0.0.1:23333/v1", server.url), names)
    assert "A cup" in capsys.readouterr().out


def test_the_commands_are_one_line_each() -> None:
    text = (ROOT / "README.md").read_text()
    commands = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("describe examples/images/scene.png --model demo")
    assert commands[1].endswith("pytest")
    assert all(f"```sh\n{command}\n```" in text for command in commands)


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
