"""LMDeploy 0.7.3's own command in an environment of its own: all of it but the CUDA engine."""

from __future__ import annotations

import os
from pathlib import Path

from tests.environments import ensure

HERE = Path(__file__).parent


def lmdeploy_executable() -> Path:
    """A stand-in for the ``lmdeploy`` command; installs about 1.8 GB the first time."""
    python = ensure("conformance", HERE / "requirements.txt")
    script = python.with_name("lmdeploy-standin")
    text = f"#!/bin/sh\nexec '{python}' '{HERE / 'standin' / 'lmdeploy_standin.py'}' \"$@\"\n"
    if not script.exists() or script.read_text() != text:
        draft = script.with_name(f"lmdeploy-standin.{os.getpid()}")
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(script)
    return script


if __name__ == "__main__":
    print(lmdeploy_executable())
