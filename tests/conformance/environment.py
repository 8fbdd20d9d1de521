"""The two LMDeploys' own command, each in an environment of its own: all but the CUDA engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.environments import ensure

HERE = Path(__file__).parent
OLD, NEW = "0.7.3", "0.18.0"
VERSIONS = (OLD, NEW)


def standin(version: str) -> Path:
    """The folder of that version's stand-in."""
    return HERE / "standin" / {OLD: "lmdeploy_073", NEW: "lmdeploy_018"}[version]


def lmdeploy_executable(version: str = OLD) -> Path:
    """A stand-in for the ``lmdeploy`` command; installs about 2 GB the first time."""
    python = ensure(f"lmdeploy-{version}")
    script = python.with_name("lmdeploy-standin")
    program = str(standin(version) / "lmdeploy_standin.py")
    text = f"#!{python}\nimport runpy\nrunpy.run_path({program!r}, run_name='__main__')\n"
    if not script.exists() or script.read_text() != text:
        draft = script.with_name(f"lmdeploy-standin.{os.getpid()}")
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(script)
    return script


if __name__ == "__main__":
    print(lmdeploy_executable(*sys.argv[1:]))
