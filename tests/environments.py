"""Environments of their own for servers whose packages do not fit beside ours.

Each is made once from its pinned requirements, into the folder named by
``INTERNVL_MODAL_TEST_CACHE``, by default ``.cache`` in the repository, and kept while they stay.
``python -m tests.environments`` makes all of them, which takes minutes that no test has to wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CACHE_VARIABLE = "INTERNVL_MODAL_TEST_CACHE"
WANTED = (3, 11)
"""The Python that every pinned requirement has a wheel for."""


ENVIRONMENTS = {
    "gateway-clients": "tests/gateway_clients/requirements.txt",
    "lmdeploy-0.7.3": "tests/conformance/requirements-0.7.3.txt",
    "lmdeploy-0.18.0": "tests/conformance/requirements-0.18.0.txt",
    "scale": "tests/scale/requirements.txt",
    "stores": "tests/batch/stores/requirements.txt",
    "vllm": "tests/vllm/requirements.txt",
}
"""Requirements by name."""


class CannotInstall(RuntimeError):
    """The environment cannot be made here; the message says why."""


def ensure(name: str) -> Path:
    """The ``python`` of the environment ``name``, which is made where it is missing or outdated.

    ``torch`` is asked for by its plain version: give pip an index of CPU builds, or it fetches one
    for CUDA. Every requirement is pinned and installed without its dependencies.
    """
    requirements = REPOSITORY / ENVIRONMENTS[name]
    folder = _cache_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    stamp = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "env" / "bin" / "python"
    marker = folder / "env" / "requirements.sha256"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text() != stamp:
            _run(_interpreter(), "-m", "venv", "--clear", str(folder / "env"))
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run(*pip, "--no-deps", "--requirement", str(requirements))
            marker.write_text(stamp)
    return python


def _cache_folder() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else REPOSITORY / ".cache"


def _candidates() -> Iterator[str]:
    version = ".".join(map(str, WANTED))
    yield sys.executable
    yield from filter(None, [shutil.which(f"python{version}")])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{version}*/bin/python")))


def _interpreter() -> str:
    code = f"import sys, ensurepip; raise SystemExit(sys.version_info[:2] != {WANTED})"
    for candidate in _candidates():
        tried = subprocess.run([candidate, "-c", code], capture_output=True, check=False)
        if tried.returncode == 0:
            return candidate
    raise CannotInstall(f"needs Python {WANTED[0]}.{WANTED[1]} with ensurepip, none found")


def _run(*command: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise CannotInstall(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    for name in ENVIRONMENTS:
        print(ensure(name), flush=True)
