"""An environment of its own for LMDeploy 0.7.3: made once, reused while its requirements stay."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
REQUIREMENTS = HERE / "requirements.txt"
CACHE_VARIABLE = "INTERNVL_MODAL_TEST_CACHE"
WANTED = (3, 11)  # LMDeploy's wheels stop at 3.12; the pinned NumPy and NetworkX leave 3.11


class CannotInstall(RuntimeError):
    """The environment cannot be made here; the message says why."""


def cache_folder() -> Path:
    """Where the environment lies: the variable's folder, or ``.cache/conformance``."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else REPOSITORY / ".cache" / "conformance"


def _candidates() -> Iterator[str]:
    yield sys.executable
    yield from filter(None, [shutil.which("python3.11")])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob("versions/3.11*/bin/python")))


def _interpreter() -> str:
    for candidate in _candidates():
        code = f"import sys, ensurepip; raise SystemExit(sys.version_info[:2] != {WANTED})"
        if (
            subprocess.run([candidate, "-c", code], capture_output=True, check=False).returncode
            == 0
        ):
            return candidate
    raise CannotInstall("LMDeploy's environment needs Python 3.11 with ensurepip, none found")


def ensure() -> Path:
    """The environment's ``python``; installs about 1.8 GB the first time.

    ``torch`` is asked for by its plain version: give pip an index of CPU builds, or it fetches one
    for CUDA. Every requirement is pinned and installed without its dependencies.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    stamp = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    python = folder / "env" / "bin" / "python"
    marker = folder / "env" / "requirements.sha256"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text() != stamp:
            _run(_interpreter(), "-m", "venv", "--clear", str(folder / "env"))
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run(*pip, "--no-deps", "--requirement", str(REQUIREMENTS))
            marker.write_text(stamp)
    return python


def lmdeploy_executable() -> Path:
    """A stand-in for the ``lmdeploy`` command: all of it but the CUDA engine."""
    python = ensure()
    script = python.with_name("lmdeploy-standin")
    standin = HERE / "standin" / "lmdeploy_standin.py"
    text = f"#!{python}\nimport runpy\nrunpy.run_path({str(standin)!r}, run_name='__main__')\n"
    if not script.exists() or script.read_text() != text:
        draft = script.with_name(f"lmdeploy-standin.{os.getpid()}")
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(script)
    return script


def _run(*command: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise CannotInstall(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(lmdeploy_executable())
