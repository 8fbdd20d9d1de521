"""An environment of their own for the packages that the benchmarks compare with."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = (
    *("openai>=1.60", "scikit-image>=0.24", "matplotlib>=3.9", "httpx>=0.28", "numpy>=1.26"),
    "gguf>=0.17",
)


def environment() -> Path:
    """The ``python`` of an environment that has this package and its peers; made where missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    wanted = "\n".join([sys.version, str(ROOT), *PEERS, (ROOT / "pyproject.toml").read_text()])
    folder = cache / "internvl-modal-benchmarks" / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"installing the peers into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        constraints = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *constraints, "-e", f"{ROOT}[fast,local]", *PEERS], check=True)
        ready.touch()
    return python
