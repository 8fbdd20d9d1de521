"""The blocks of a page of the documentation, run as a reader would run them.

Commands meet stand-ins where they would reach out of this machine: ``pip`` looks the extras up in
this package's own metadata, ``internvl-modal serve`` ends once it listens, and ``internvl-modal
deploy`` is a dry run unless there is a Modal to deploy to.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.loopback import Heard, Reply, completion, stream_events

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^(?:<!-- needs: (.*?) -->\n)?```(python|sh)\n(.*?)^```$", re.S | re.M)

PIP = """
import re, sys
from importlib.metadata import metadata
known = set(metadata("internvl-modal").get_all("Provides-Extra"))
for word in sys.argv[2:]:
    for name in re.findall(r"\\[(.*)\\]", word):
        assert set(name.split(",")) <= known, word
assert sys.argv[1] == "install"
"""
COMMAND = """
import os, subprocess, sys
command = [sys.executable, "-m", "internvl_modal", *sys.argv[1:]]
if sys.argv[1:2] == ["serve"]:
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as server:
        said = [server.stderr.readline() for _ in range(4)]
        server.terminate()
    assert "page: http://127.0.0.1:" in "".join(said), said
elif os.environ.get("STANDS_IN") and sys.argv[1:2] == ["describe"] and "modal" in command:
    at = command.index("--backend")  # and the model there; the server is the one of a setting
    raise SystemExit(subprocess.run(command[:at] + command[at + 4 :]).returncode)
elif os.environ.get("STANDS_IN") and sys.argv[1] in ("deploy", "connect", "stop", "status"):
    if sys.argv[1] == "deploy":
        raise SystemExit(subprocess.run([*command, "--dry-run"]).returncode)
    subprocess.run([*command, "--help"], check=True, stdout=subprocess.DEVNULL)
else:
    raise SystemExit(subprocess.run(command).returncode)
"""


@dataclass(frozen=True)
class Block:
    """One block of a page; ``needs`` is what must be installed for it, beside the package."""

    language: str
    code: str
    needs: str


def blocks(page: str) -> list[Block]:
    """Those of Python and shell in a page, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [Block(found[2], found[3], found[1] or "") for found in _BLOCK.finditer(text)]


def commands(folder: Path) -> Path:
    """A folder with the stand-ins, for the front of PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, code in (("pip", PIP), ("internvl-modal", COMMAND)):
        (folder / name).write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def perform(page: str) -> None:
    """Run every block of a page in order; those of Python are one program, as in a session."""
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks(page):
        python = block.language == "python"
        if python and not block.needs:
            exec(compile(block.code, page, "exec"), names)
            continue
        command = [sys.executable, "-c", block.code] if python else ["bash", "-euc", block.code]
        if block.needs:
            command[0] = "python" if python else command[0]
            uv = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable]
            command = [*uv, "--with", block.needs, "--with-editable", str(ROOT), *command]
        subprocess.run(command, check=True, timeout=250)


def performed(
    page: str, environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, in ``folder``, with the stand-ins."""
    path = f"{commands(folder / 'stand-ins')}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "tests.documented", page],
        env={**environment, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )


def answer(heard: Heard) -> Reply:
    """What a good server would say: a stream when asked for, JSON when a schema stands there."""
    if heard.json.get("stream"):
        return Reply(chunks=stream_events("A cup ", "of coffee.", prompt_tokens=90_000))
    text = '{"colour": "white", "full": true}' if b"JSON schema" in heard.body else "A cup."
    return Reply(body=completion(text, prompt_tokens=90_000))


if __name__ == "__main__":
    perform(sys.argv[1])
