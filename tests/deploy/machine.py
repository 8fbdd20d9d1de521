"""Code in a process of its own, whose Modal client talks to a plane on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.modal_plane import Plane

REPOSITORY = Path(__file__).parents[2]

PRELUDE = """
import json, sys
import internvl_modal as ivl
from internvl_modal.deployment.api import aconnect, adeploy, connect, deploy
from internvl_modal.errors import InternVLError

def say(value):
    print(json.dumps(value), flush=True)

def attempt(function):
    try:
        function()
    except InternVLError as error:
        say([type(error).__name__, error.message, error.hint])
    else:
        say("no error")
"""


class Machine:
    """A user's machine: an empty home folder and a Modal account on ``plane``."""

    def __init__(self, plane: Plane, home: Path) -> None:
        self.plane, self.home = plane, home
        home.mkdir(parents=True, exist_ok=True)
        self.env: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes."""
        base = self.plane.client_env(self.home) | {"PYTHONPATH": str(REPOSITORY)}
        hub = {} if "HF_ENDPOINT" in self.env else {"HF_HUB_OFFLINE": "1"}
        return base | hub | self.env

    def command(self, *argv: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            argv,
            env={name: value for name, value in self.environment.items() if value},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def python(self, code: str, timeout: float = 120) -> Any:
        """Run code after ``PRELUDE``; the value of its last ``say``."""
        done = self.command(sys.executable, "-c", PRELUDE + code, timeout=timeout)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if " s so far; " not in line]
        assert not said, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    @property
    def key(self) -> str:
        """The key it keeps of its only deployment."""
        (file,) = self.home.rglob("deployments/*/*/*.json")
        key: str = json.loads(file.read_text())["api_key"]
        return key
