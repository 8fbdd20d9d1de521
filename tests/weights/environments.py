"""Make an environment of this package with huggingface_hub below 1.0 and hf_transfer.

It lies in the folder named by ``INTERNVL_MODAL_TEST_ENVS``, by default ``.cache/environments`` in
the repository, and is made once for each state of ``pyproject.toml``. Run this file to make it
beforehand; it prints the interpreter.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BELOW_1 = ["huggingface_hub<1.0", "hf_transfer", "hf-xet>=1.6"]
TOOLS = ["pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.120"]


def below_1() -> Path:
    """The interpreter of the environment, which is made where it is missing."""
    home = os.environ.get("INTERNVL_MODAL_TEST_ENVS") or REPOSITORY / ".cache" / "environments"
    state = (REPOSITORY / "pyproject.toml").read_bytes() + repr(BELOW_1 + TOOLS).encode()
    folder = Path(home) / f"hub-below-1-{hashlib.sha256(state).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, clear=True, with_pip=True)
        packages = [*BELOW_1, *TOOLS, "-e", str(REPOSITORY)]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "complete").touch()
    return python


if __name__ == "__main__":
    sys.stdout.write(f"{below_1()}\n")
